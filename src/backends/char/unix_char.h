// A serial cable to a Unix socket at which we listen: one program of the host at a time is at its other end,
// and the next one waits until it leaves.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "backends/char/char_backend.h"
#include "backends/event_loop/event_loop.h"
#include "backends/unix_socket/unix_socket.h"
#include "base/file.h"
#include "base/result.h"

namespace tessera {

// Bytes wait where they are: what the guest has no room for stays in the program's socket, what the program
// does not read stays with the guest, both but for a bounded rest. Without a program the guest's bytes are
// lost. A program that will send no more has left.
class UnixChar final : public CharBackend {
public:
    // `option` is what error messages begin with.
    static Result<std::unique_ptr<UnixChar>> create(EventLoop& loop, const std::string& option,
                                                    const std::string& path);
    UnixChar(const UnixChar&) = delete;
    UnixChar& operator=(const UnixChar&) = delete;
    // Not while the guest runs.
    ~UnixChar() override;

    bool put(u8 byte) override { return put_some({&byte, 1}) == 1; }
    std::size_t put_some(std::span<const u8> bytes) override;
    void receive_ready() override;
    void connect(CharPeer* peer) override;

private:
    UnixChar(EventLoop& loop, UnixListener listener) : loop_(loop), listener_(std::move(listener)) {}
    void on_connection();
    void on_client(u32 events);
    void read_some();
    void deliver();
    void write_out();
    void watch_client();
    void leave();

    EventLoop& loop_;

    // Loop thread only.
    UnixListener listener_;
    File client_;
    CharPeer* peer_ = nullptr;
    std::vector<u8> for_guest_;  // read, not yet taken
    std::string writing_;        // taken from output_, not yet written
    u32 watched_ = 0;            // of the client

    std::mutex mutex_;
    std::string output_;        // from the guest, bounded
    bool attended_ = false;     // there is a client
    bool guest_waits_ = false;  // put_some() had no room
};

}  // namespace tessera
