// A cable between two processes: a pair of frame rings in one piece of memory, and a socket for messages and
// for waking each other. Neither side trusts the other, and no call waits.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backends/net/net_backend.h"
#include "backends/net/ring/frame_ring.h"
#include "base/file.h"
#include "base/result.h"

namespace tessera::net {

// The socket is of type SOCK_SEQPACKET; a message is one of these and what belongs to it.
enum class MessageType : u8 { Wake, Hello, Offloads, Ready };

struct Message {
    MessageType type = MessageType::Wake;
    std::vector<u8> content;
    std::vector<File> files;
};
inline constexpr std::size_t kMostContent = 8192;
inline constexpr std::size_t kMostFiles = 100;

// Sends what fits into the socket now; false if it does not, or the other side is gone.
bool send_message(int socket, MessageType type, std::span<const u8> content = {},
                  std::span<const int> files = {});
enum class Receipt : u8 { Message, Nothing, Gone };
// Without waiting. A message that is malformed counts as Gone.
Receipt receive_message(int socket, Message& message);

class Link {
public:
    // The side that makes the memory; memory() is then sent to the other.
    static Result<std::unique_ptr<Link>> create(int socket);
    // The other side. The memory must be of the right size and unable to shrink, or reading it could kill us.
    static Result<std::unique_ptr<Link>> adopt(int socket, File memory);
    Link(const Link&) = delete;
    Link& operator=(const Link&) = delete;
    ~Link();

    [[nodiscard]] int memory() const { return memory_.get(); }
    [[nodiscard]] RingWriter& out() { return *out_; }
    [[nodiscard]] RingReader& in() { return *in_; }
    [[nodiscard]] bool broken() const { return out_->broken() || in_->broken(); }
    void wake_peer() const { (void)send_message(socket_, MessageType::Wake); }

private:
    enum class Side : u8 { Maker, Other };
    Link(int socket, File memory) : socket_(socket), memory_(std::move(memory)) {}
    Status map(Side side);

    int socket_;  // not ours
    File memory_;
    std::span<u8> mapped_;
    std::unique_ptr<RingWriter> out_;
    std::unique_ptr<RingReader> in_;
};

// Frames cross with the header they had; one that does not fit its frame, or asks for what the receiver has
// not agreed to, is not passed on.
[[nodiscard]] bool header_is_sane(const NetHeader& header, std::size_t frame_size, const NetOffloads& agreed);

[[nodiscard]] u8 pack(const NetOffloads& offloads);
[[nodiscard]] NetOffloads unpack_offloads(u8 bits);

}  // namespace tessera::net
