// A hostile process at the other end of the cable: it writes what it likes into the rings, and into the
// frames while they are read; and a hostile member of a switch, whose frames are finished in software.
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "backends/net/ring/link.h"
#include "backends/net/switch/offload.h"

namespace {

using namespace tessera;       // NOLINT(google-build-using-namespace): a program of one file
using namespace tessera::net;  // NOLINT(google-build-using-namespace)

void must(bool right, const char* what) {
    if (right) return;
    std::fprintf(stderr, "broken promise: %s\n", what);
    std::abort();
}

// Fields of the other side, from the input.
class Hostile {
public:
    Hostile(const u8* data, std::size_t size) : rest_(data, size) {}
    [[nodiscard]] bool empty() const { return rest_.empty(); }
    u32 word() {
        u32 value = 0;
        const std::size_t size = std::min(sizeof value, rest_.size());
        std::memcpy(&value, rest_.data(), size);
        rest_ = rest_.subspan(size);
        return value;
    }
    u32 close_to(u32 base) {
        const u32 value = word();
        return (value & 1) != 0 ? value : base + (value >> 1) % 262'144 * 16;
    }

private:
    std::span<const u8> rest_;
};

// Kept between inputs: two MiB for each would be all that is measured.
std::vector<u8>& memory() {
    static std::vector<u8> bytes(kRingBytes);
    return bytes;
}

void rings(Hostile hostile) {
    RingControl control;
    std::vector<u8>& bytes = memory();
    RingReader reader(control, bytes);
    RingControl other_control;
    RingWriter writer(other_control, bytes);
    u32 place = 0;
    for (int step = 0; step < 200 && !hostile.empty(); ++step) {
        control.tail = hostile.close_to(place);
        const RingRecord record{.length = hostile.word() % 70'000, .stride = hostile.close_to(0)};
        const u32 at = place % kRingBytes & ~15U;
        std::memcpy(&bytes[at], &record, sizeof record);
        const auto frame = reader.next();
        if (!frame.empty()) {
            must(frame.data() >= bytes.data() && frame.data() + frame.size() <= bytes.data() + bytes.size(),
                 "a frame lies inside");
            NetHeader header;
            std::memcpy(&header, frame.data(), sizeof header);
            (void)header_is_sane(header, frame.size() - sizeof header, unpack_offloads(63));
            place += record.stride;
        }
        (void)reader.pop();
        (void)reader.sleep();
        other_control.head = hostile.close_to(0);
        std::array<std::span<u8>, 3> room;
        const std::size_t size = hostile.word() % (sizeof(NetHeader) + kMaxFrame);
        const std::size_t count = writer.reserve(size, room);
        for (std::size_t i = 0; i < count; ++i)
            must(room[i].data() >= bytes.data() && room[i].data() + size <= bytes.data() + bytes.size(),
                 "room lies inside");
        (void)writer.want_room(size);
        if (count != 0) (void)writer.commit(std::array{size});
    }
}

void offloads(const u8* data, std::size_t size) {
    if (size < sizeof(NetHeader) + 14 || size > sizeof(NetHeader) + kMaxFrame) return;
    NetHeader header;
    std::memcpy(&header, data, sizeof header);
    std::vector<u8> frame(data + sizeof header, data + size);
    if (!header_is_sane(header, frame.size(), {.checksum = true, .tso4 = true, .tso6 = true})) return;
    std::size_t count = 0;
    complete_frame(header, frame, [&](std::span<const u8> made) {
        ++count;
        must(made.size() <= frame.size(), "a part is no larger than the whole");
    });
    must(count <= 128, "one frame does not become thousands");
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer fixes this name.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    rings(Hostile(data, size));
    offloads(data, size);
    return 0;
}
