// A guest's sockets as Unix sockets of the host, the way Firecracker has them [FIRECRACKER-VSOCK]: programs
// that connect to PATH and say "CONNECT PORT\n" reach the guest's port, and are told "OK HOSTPORT\n"; a guest
// that connects to the host's port P reaches whoever listens at PATH_P. Streams only. GAP: sequenced packets
// (SOCK_SEQPACKET).
#pragma once

#include <chrono>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "backends/event_loop/event_loop.h"
#include "backends/unix_socket/unix_socket.h"
#include "backends/vsock/vsock_backend.h"
#include "base/file.h"
#include "base/result.h"

namespace tessera {

class UnixVsock final : public VsockBackend, private DeadlineHandler {
public:
    // Connections, and those of programs the guest has not answered yet.
    static constexpr std::size_t kMostSockets = 512;
    static constexpr std::size_t kMostUnanswered = 64;

    // How long a program may take to say which port it wants.
    static constexpr std::chrono::milliseconds kPatience{10'000};

    static Result<std::unique_ptr<UnixVsock>> create(EventLoop& loop, const std::string& path,
                                                     std::chrono::milliseconds patience = kPatience);
    UnixVsock(const UnixVsock&) = delete;
    UnixVsock& operator=(const UnixVsock&) = delete;
    // Not while the guest runs.
    ~UnixVsock() override;

    bool next_event(VsockEvent& event) override;
    void open(VsockId id, u32 port) override;
    void accepted(VsockId id, u32 host_port) override;
    void close(VsockId id) override;
    void close_all() override;
    std::size_t send(VsockId id, std::span<const iovec> pieces) override;
    void end_of_sending(VsockId id) override;
    void end_of_receiving(VsockId id) override;
    Received receive(VsockId id, std::span<u8> out) override;
    void connect(VsockPeer* peer) override;

private:
    using Clock = std::chrono::steady_clock;
    enum class Phase : u8 {
        Asking,  // has not said yet which port it wants
        Asked,   // the guest has not answered
        Open,
    };
    struct Socket {
        File file;
        Phase phase = Phase::Asking;
        Clock::time_point since;  // when it was made
        std::string out;          // of the guest, not sent yet; at most kRoom
        bool end_due = false;     // when it is sent
        // Events that wait.
        bool listed = false;  // in ready_
        bool request = false;
        bool opened = false;
        bool readable = false;
        bool gone = false;
        u32 forwarded = 0;
        u32 port = 0;
    };
    using Sockets = std::unordered_map<VsockId, Socket>;

    UnixVsock(EventLoop& loop, UnixListener listener, std::string path, std::chrono::milliseconds patience)
        : loop_(loop), listener_(std::move(listener)), path_(std::move(path)), patience_(patience) {}

    // On the loop's thread.
    void on_connection();
    void on_socket(VsockId id, u32 events);
    void start_watching(VsockId id);
    void notify();
    u64 run_due() override;

    // With mutex_ held.
    [[nodiscard]] Socket* find_open(VsockId id);
    Socket& add(VsockId id, File file, Phase phase);
    void remove(Sockets::iterator where);
    void list(VsockId id, Socket& socket);
    void lose(VsockId id, Socket& socket);
    void flush(VsockId id, Socket& socket);
    // False: the program is not to be served.
    [[nodiscard]] bool read_command(VsockId id, Socket& socket);
    [[nodiscard]] std::size_t unanswered() const;

    EventLoop& loop_;
    UnixListener listener_;  // loop thread only
    const std::string path_;
    const std::chrono::milliseconds patience_;
    VsockPeer* peer_ = nullptr;  // loop thread only

    std::mutex mutex_;
    Sockets sockets_;
    bool somebody_asks_ = false;  // perhaps
    std::deque<VsockId> ready_;   // those with events, each once
    VsockId next_id_ = 1;
};

}  // namespace tessera
