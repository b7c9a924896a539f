#include "backends/net/ring/link.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <system_error>

namespace tessera::net {

namespace {

constexpr std::size_t kControls = 4096;
constexpr std::size_t kMemory = kControls + 2 * std::size_t{kRingBytes};
constexpr unsigned kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

std::unexpected<Error> host_failure(std::string_view what) {
    return fail(Errc::HostFailure,
                fmt::format("network: {}: {}", what, std::generic_category().message(errno)));
}

}  // namespace

// --- Messages ---

bool send_message(int socket, MessageType type, std::span<const u8> content, std::span<const int> files) {
    u8 first = static_cast<u8>(type);
    std::array<iovec, 2> pieces{};
    pieces[0] = {.iov_base = &first, .iov_len = 1};
    // NOLINTNEXTLINE(cppcoreguidelines-pro-type-const-cast): sendmsg only reads
    pieces[1] = {.iov_base = const_cast<u8*>(content.data()), .iov_len = content.size()};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(kMostFiles * sizeof(int))> control{};
    msghdr header{};
    header.msg_iov = pieces.data();
    header.msg_iovlen = content.empty() ? 1 : 2;
    if (content.size() > kMostContent || files.size() > kMostFiles) return false;
    if (!files.empty()) {
        header.msg_control = control.data();
        header.msg_controllen = CMSG_SPACE(files.size_bytes());
        cmsghdr* const part = CMSG_FIRSTHDR(&header);
        part->cmsg_level = SOL_SOCKET;
        part->cmsg_type = SCM_RIGHTS;
        part->cmsg_len = CMSG_LEN(files.size_bytes());
        std::memcpy(CMSG_DATA(part), files.data(), files.size_bytes());
    }
    return ::sendmsg(socket, &header, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0;
}

Receipt receive_message(int socket, Message& message) {
    std::array<u8, 1 + kMostContent> content;  // NOLINT(cppcoreguidelines-pro-type-member-init): filled next
    alignas(cmsghdr) std::array<char, CMSG_SPACE(kMostFiles * sizeof(int))> control{};
    iovec piece{.iov_base = content.data(), .iov_len = content.size()};
    msghdr header{};
    header.msg_iov = &piece;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    const ssize_t got = ::recvmsg(socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    message = {};
    if (got < 0) return errno == EAGAIN || errno == EINTR ? Receipt::Nothing : Receipt::Gone;
    for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr; part = CMSG_NXTHDR(&header, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
        const std::size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        const std::span<const u8> numbers(CMSG_DATA(part), count * sizeof(int));
        for (std::size_t i = 0; i < count; ++i) {
            int fd = -1;
            std::memcpy(&fd, numbers.subspan(i * sizeof fd).data(), sizeof fd);
            message.files.emplace_back(fd);
        }
    }
    if (got == 0 || (header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 ||
        content[0] > static_cast<u8>(MessageType::Ready))
        return Receipt::Gone;
    message.type = static_cast<MessageType>(content[0]);
    message.content.assign(content.begin() + 1, content.begin() + got);
    return Receipt::Message;
}

// --- The cable ---

Result<std::unique_ptr<Link>> Link::create(int socket) {
    File memory(memfd_create("tessera-net", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!memory.is_open()) return host_failure("cannot make shared memory");
    if (ftruncate(memory.get(), kMemory) < 0) return host_failure("cannot size shared memory");
    if (fcntl(memory.get(), F_ADD_SEALS, kSeals) < 0) return host_failure("cannot seal shared memory");
    std::unique_ptr<Link> link(new Link(socket, std::move(memory)));
    if (auto mapped = link->map(Side::Maker); !mapped) return std::unexpected(std::move(mapped.error()));
    return link;
}

Result<std::unique_ptr<Link>> Link::adopt(int socket, File memory) {
    struct stat info{};
    if (fstat(memory.get(), &info) < 0) return host_failure("cannot look at shared memory");
    const int seals = fcntl(memory.get(), F_GET_SEALS);
    if (seals < 0 || (static_cast<unsigned>(seals) & F_SEAL_SHRINK) == 0 || info.st_size != kMemory)
        return fail(Errc::InvalidArgument, "network: the other side's memory is not what it should be");
    std::unique_ptr<Link> link(new Link(socket, std::move(memory)));
    if (auto mapped = link->map(Side::Other); !mapped) return std::unexpected(std::move(mapped.error()));
    return link;
}

Status Link::map(Side side) {
    void* const address = mmap(nullptr, kMemory, PROT_READ | PROT_WRITE, MAP_SHARED, memory_.get(), 0);
    if (address == MAP_FAILED) return host_failure("cannot map shared memory");
    mapped_ = {static_cast<u8*>(address), kMemory};
    // Zero from its making on, and perhaps in use already by the other side: nothing is constructed there.
    auto* const first = reinterpret_cast<RingControl*>(mapped_.data());
    auto* const second = reinterpret_cast<RingControl*>(mapped_.subspan(kControls / 2).data());
    const std::span<u8> first_data = mapped_.subspan(kControls, kRingBytes);
    const std::span<u8> second_data = mapped_.subspan(kControls + kRingBytes, kRingBytes);
    const bool maker = side == Side::Maker;
    out_ = std::make_unique<RingWriter>(maker ? *first : *second, maker ? first_data : second_data);
    in_ = std::make_unique<RingReader>(maker ? *second : *first, maker ? second_data : first_data);
    return {};
}

Link::~Link() {
    if (!mapped_.empty()) (void)munmap(mapped_.data(), mapped_.size());
}

// --- Headers ---

bool header_is_sane(const NetHeader& header, std::size_t frame_size, const NetOffloads& agreed) {
    const auto need = [](bool asked, bool allowed) { return !asked || allowed; };
    const u8 gso = header.gso_type & static_cast<u8>(~NetHeader::kGsoEcn);
    const bool ecn = (header.gso_type & NetHeader::kGsoEcn) != 0;
    const bool sums = (header.flags & NetHeader::kNeedsChecksum) != 0;
    if ((header.flags & ~(NetHeader::kNeedsChecksum | NetHeader::kDataValid)) != 0) return false;
    if (!need(sums, agreed.checksum) || !need(ecn, agreed.ecn)) return false;
    if (sums && std::size_t{header.checksum_start} + header.checksum_offset + 2 > frame_size) return false;
    switch (gso) {
        case NetHeader::kGsoNone: return !ecn;
        case NetHeader::kGsoTcp4:
            if (!agreed.tso4) return false;
            break;
        case NetHeader::kGsoTcp6:
            if (!agreed.tso6) return false;
            break;
        case NetHeader::kGsoUdp:
            if (!agreed.ufo) return false;
            break;
        case NetHeader::kGsoUdpL4:
            if (!agreed.uso) return false;
            break;
        default: return false;
    }
    return sums && header.gso_size != 0 && header.header_length <= frame_size;
}

u8 pack(const NetOffloads& offloads) {
    u8 bits = 0;
    u8 bit = 1;
    for (const bool on :
         {offloads.checksum, offloads.tso4, offloads.tso6, offloads.ecn, offloads.ufo, offloads.uso}) {
        if (on) bits |= bit;
        bit = static_cast<u8>(bit << 1);
    }
    return bits;
}

NetOffloads unpack_offloads(u8 bits) {
    return {.checksum = (bits & 1) != 0,
            .tso4 = (bits & 2) != 0,
            .tso6 = (bits & 4) != 0,
            .ecn = (bits & 8) != 0,
            .ufo = (bits & 16) != 0,
            .uso = (bits & 32) != 0};
}

}  // namespace tessera::net
