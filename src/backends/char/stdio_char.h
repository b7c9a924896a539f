// A serial cable to the program's standard input and output: raw terminal with escape keys, or plain pipes
// and files.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "backends/char/char_backend.h"
#include "backends/char/escape_keys.h"
#include "backends/char/terminal.h"
#include "backends/event_loop/event_loop.h"
#include "base/result.h"

namespace tessera {

// Bytes are never lost: what the guest has no room for stays in the pipe or terminal, what the host has no
// room for stays with the guest. With a terminal on `in` the escape keys work; otherwise every byte is the
// guest's. The end of the input ends nothing but the input.
class StdioChar final : public CharBackend {
public:
    struct Config {
        int in = 0;
        int out = 1;
        // Called on the loop's thread.
        std::function<void()> on_quit;        // Ctrl-a x
        std::function<void()> on_statistics;  // Ctrl-a s
    };
    static Result<std::unique_ptr<StdioChar>> create(EventLoop& loop, Config config);
    StdioChar(const StdioChar&) = delete;
    StdioChar& operator=(const StdioChar&) = delete;
    // Not while the guest runs. Leaves the terminal as it was.
    ~StdioChar() override;

    bool put(u8 byte) override { return put_some({&byte, 1}) == 1; }
    std::size_t put_some(std::span<const u8> bytes) override;
    void receive_ready() override;
    void connect(CharPeer* peer) override;

    // Waits until the guest's output is written, at most so long.
    void drain(std::chrono::milliseconds at_most);
    // The terminal may have another size now. On any thread.
    void look_at_size();
    // A message of ours among the guest's output. On the loop's thread.
    void print(std::string_view text);

private:
    enum class Watch : u8 { Epoll, AlwaysReady, None };
    struct Descriptor {
        int fd = -1;
        bool ours = false;  // opened by us, hence non-blocking and to be closed
        Watch watch = Watch::None;
        u32 events = 0;
    };

    StdioChar(EventLoop& loop, Config config) : loop_(loop), config_(std::move(config)) {}
    Status open();
    Status start_watching();
    static Descriptor adopt(int fd, int access);
    void want(Descriptor& descriptor, u32 events);

    void tell_size();
    void on_input();
    [[nodiscard]] bool may_read() const;
    bool read_some();
    void feed(std::span<const u8> bytes);
    void do_action(EscapeKeys::Action action);
    void deliver();
    void on_output();
    [[nodiscard]] std::string take_output();
    bool write_out();
    void stamp(std::string& text);

    EventLoop& loop_;
    Config config_;
    std::unique_ptr<RawTerminal> terminal_;

    // Loop thread only.
    Descriptor in_;
    Descriptor out_;
    CharPeer* peer_ = nullptr;
    EscapeKeys keys_;
    bool has_keys_ = false;
    bool input_ended_ = false;
    std::vector<u8> for_guest_;  // read, not yet taken
    std::string writing_;        // taken from output_, not yet written
    bool time_stamps_ = false;
    bool line_begins_ = true;
    std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();

    std::mutex mutex_;
    std::string output_;        // from the guest, bounded
    bool guest_waits_ = false;  // put() has returned false
};

}  // namespace tessera
