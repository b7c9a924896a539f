// Hostile programs at a guest's Unix sockets, and a device that does what it likes: what programs say first
// is read as the grammar has it, and connections come, talk, stall and go in any order. GAP: the host's
// sockets have no failures of their own here.
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <sys/socket.h>
#include <sys/un.h>
#include <vector>

#include "backends/vsock/connect_command.h"
#include "backends/vsock/unix_vsock.h"

namespace {

using namespace tessera;  // NOLINT(google-build-using-namespace): a program of one file

void must(bool right, const char* what) {
    if (right) return;
    std::fprintf(stderr, "broken promise: %s\n", what);
    std::abort();
}

class Input {
public:
    Input(const u8* data, std::size_t size) : rest_(data, size) {}
    [[nodiscard]] bool empty() const { return rest_.empty(); }
    u8 byte() {
        if (rest_.empty()) return 0;
        const u8 first = rest_.front();
        rest_ = rest_.subspan(1);
        return first;
    }
    std::string text(std::size_t most) {
        const auto part = rest_.first(std::min(most, rest_.size()));
        rest_ = rest_.subspan(part.size());
        return {part.begin(), part.end()};
    }

private:
    std::span<const u8> rest_;
};

// --- The grammar ---

// "CONNECT ", digits that make up at most 2^32 - 1, a newline, all within 32 bytes.
ConnectCommand by_the_grammar(const std::string& text) {
    using enum ConnectCommand::Verdict;
    const std::string begin = "CONNECT ";
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] != '\n') continue;
        if (i <= begin.size() || text.compare(0, begin.size(), begin) != 0) return {.verdict = Nonsense};
        u64 port = 0;
        for (std::size_t n = begin.size(); n < i; ++n) {
            if (text[n] < '0' || text[n] > '9') return {.verdict = Nonsense};
            port = port * 10 + static_cast<u64>(text[n] - '0');
            if (port > 0xffff'ffff) return {.verdict = Nonsense};
        }
        return {.verdict = Command, .port = static_cast<u32>(port), .size = i + 1};
    }
    return {.verdict = text.size() < 32 ? Incomplete : Nonsense};
}

void commands(Input input) {
    while (!input.empty()) {
        const u8 shape = input.byte();
        std::string text = (shape & 1) != 0 ? "CONNECT " : "";
        text += input.text(shape >> 3);
        if ((shape & 2) != 0) text += '\n';
        text.resize(std::min(text.size(), ConnectCommand::kLongest));
        const ConnectCommand got = ConnectCommand::parse(text);
        const ConnectCommand expected = by_the_grammar(text);
        must(got.verdict == expected.verdict, "the verdict is the grammar's");
        must(got.verdict != ConnectCommand::Verdict::Command ||
                 (got.port == expected.port && got.size == expected.size),
             "port and size are those of the text");
    }
}

// --- Programs and a device ---

// Made once: a loop and a folder for each input would be all that is measured.
class Bench {
public:
    Bench() {
        std::string name = "/tmp/tessera-fuzz-vsock-XXXXXX";
        must(mkdtemp(name.data()) != nullptr, "the host gives a folder");
        folder_ = name;
        auto loop = EventLoop::create("fuzz");
        must(loop.has_value(), "the host gives a loop");
        loop_ = *std::move(loop);
        auto vsock = UnixVsock::create(*loop_, path());
        must(vsock.has_value(), "the host gives a socket");
        vsock_ = *std::move(vsock);
        auto listener = UnixListener::open("fuzz", path() + "_1");
        must(listener.has_value(), "the host gives a listener");
        listener_ = *std::move(listener);
    }
    Bench(const Bench&) = delete;
    Bench& operator=(const Bench&) = delete;
    ~Bench() {
        vsock_.reset();
        listener_ = {};
        std::filesystem::remove_all(folder_);
    }
    [[nodiscard]] std::string path() const { return folder_ + "/s"; }
    // What programs did has arrived: a turn to accept, one to watch, one to look at what was said.
    void settle() {
        for (int turn = 0; turn < 4; ++turn) (void)loop_->run([] {});
    }
    UnixVsock& vsock() { return *vsock_; }
    UnixListener& listener() { return listener_; }

private:
    std::string folder_;
    std::unique_ptr<EventLoop> loop_;
    std::unique_ptr<UnixVsock> vsock_;
    UnixListener listener_;
};

Bench& bench() {
    static Bench made;
    return made;
}

class Session {
public:
    explicit Session(Input input) : input_(input) {}
    void run() {
        for (int step = 0; step < 100 && !input_.empty(); ++step) {
            const u8 what = input_.byte();
            if (what < 112)
                program(what % 7);
            else
                device(what % 8);
        }
        bench().vsock().close_all();
        VsockEvent event;
        programs_.clear();
        while (bench().listener().accept().is_open()) {
        }
        bench().settle();
        must(!bench().vsock().next_event(event), "when all are closed there are no events");
    }

private:
    static constexpr std::size_t kMostPrograms = 80;  // more than may wait for an answer

    void program(u8 what) {
        if (what < 2) {
            if (programs_.size() < kMostPrograms) programs_.push_back(connect_unix(bench().path()));
            bench().settle();
            return;
        }
        if (programs_.empty()) return;
        const std::size_t which = input_.byte() % programs_.size();
        const int socket = programs_[which].get();
        if (socket < 0) return;
        switch (what) {
            case 2: say(socket, input_.text(input_.byte())); break;
            case 3: say(socket, "CONNECT " + std::to_string(input_.byte()) + "\n"); break;
            case 4: {
                std::array<char, 70'000> heard;  // NOLINT(cppcoreguidelines-pro-type-member-init)
                (void)::recv(socket, heard.data(), heard.size(), MSG_DONTWAIT);
                break;
            }
            case 5: (void)shutdown(socket, (input_.byte() & 1) != 0 ? SHUT_WR : SHUT_RD); break;
            default: programs_.erase(programs_.begin() + static_cast<std::ptrdiff_t>(which)); break;
        }
        bench().settle();
    }
    static void say(int socket, const std::string& text) {
        (void)::send(socket, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    }

    void device(u8 what) {
        UnixVsock& vsock = bench().vsock();
        // Mostly one that there is.
        const u8 pick = input_.byte();
        VsockId id = pick;
        if (!known_.empty())
            id = *std::next(known_.begin(), pick % static_cast<std::ptrdiff_t>(known_.size()));
        switch (what) {
            case 0:
            case 1: take_events(); break;
            case 2: vsock.accepted(id, input_.byte()); break;
            case 3: send(id); break;
            case 4: receive(id); break;
            case 5:
                vsock.close(id);
                known_.erase(id);
                closed_.insert(id);
                break;
            case 6:
                if ((pick & 1) != 0)
                    vsock.end_of_sending(id);
                else
                    vsock.end_of_receiving(id);
                break;
            default:
                known_.insert(next_id_);
                vsock.open(next_id_, pick % 3);
                next_id_ += 2;
                if (File file = bench().listener().accept(); file.is_open())
                    programs_.push_back(std::move(file));
                break;
        }
        bench().settle();
    }
    void take_events() {
        using enum VsockEvent::Kind;
        VsockEvent event;
        // Each change of a connection has at most one event that waits.
        for (int n = 0; bench().vsock().next_event(event); ++n) {
            must(n < 10'000, "events end");
            must(!closed_.contains(event.id), "what is closed has no events");
            switch (event.kind) {
                case Request:
                    must((event.id & 1) != 0 && known_.insert(event.id).second, "a request has a new name");
                    if ((input_.byte() & 3) != 0) bench().vsock().accepted(event.id, event.value);
                    break;
                case Opened: must((event.id & 1) == 0, "the device opens its own"); break;
                case Readable: break;
                case Forwarded:
                    must(event.value <= waiting_[event.id], "what is forwarded was kept");
                    waiting_[event.id] -= event.value;
                    break;
                case Gone:
                    known_.erase(event.id);
                    closed_.insert(event.id);
                    break;
            }
        }
    }
    void send(VsockId id) {
        const std::size_t size = std::size_t{input_.byte()} * 257;
        if (waiting_[id] + size > VsockBackend::kRoom) return;
        std::vector<u8> bytes(size, u8{'g'});
        const std::array<iovec, 2> pieces{
            iovec{.iov_base = bytes.data(), .iov_len = size / 2},
            iovec{.iov_base = std::span(bytes).subspan(size / 2).data(), .iov_len = size - size / 2}};
        const std::size_t sent = bench().vsock().send(id, pieces);
        must(sent <= size, "no more is sent than there is");
        waiting_[id] += size - sent;
    }
    static void receive(VsockId id) {
        std::array<u8, 300> room{};
        const auto got = bench().vsock().receive(id, std::span(room).first(200));
        must(got.bytes <= 200 && std::ranges::count(std::span(room).subspan(200), 0) == 100,
             "no more is received than there is room for");
    }

    // The backend's names go on from one input to the next; so do ours, which are even.
    static inline VsockId next_id_ = 2;

    Input input_;
    std::vector<File> programs_;
    std::set<VsockId> known_;
    std::set<VsockId> closed_;
    std::map<VsockId, u64> waiting_;
};

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer fixes this name.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const Input input(data + 1, size - 1);
    if ((data[0] & 7) == 0)
        commands(input);
    else
        Session(input).run();
    return 0;
}
