// Boots a guest with a disk in memory, and keeps a log of all that reached the disk's file and of all the
// guest said, in the order in which it came.
//
//     crash_record KERNEL INITRD raw|qcow2 IMAGE LOG
//
// IMAGE is what the disk's file begins as. LOG gets records: kind, offset and length as 64-bit numbers, then
// `length` bytes if the kind is 0 (write) or 5 (a line of the guest); 1 is a sync, 2 a hole, 3 zeroes, 4 a
// size (in `offset`).
#include <array>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backends/block/qcow2/qcow2_disk.h"
#include "backends/block/raw/raw_disk.h"
#include "backends/block/testing/memory_file.h"
#include "machines/machine.h"

namespace {

using namespace tessera;  // NOLINT(google-build-using-namespace)
using block::testing_rig::MemoryFile;

constexpr unsigned kCpus = 2;
constexpr u64 kSaid = 5;

// What the guest says, and how much was in the log when it had said so.
class Listener final : public CharBackend {
public:
    struct Line {
        std::size_t log_length = 0;
        std::string text;
    };
    explicit Listener(MemoryFile::Medium& medium) : medium_(medium) {}
    bool put(u8 byte) override {
        line_ += static_cast<char>(byte);
        if (byte != '\n') return true;
        const std::scoped_lock lock(medium_.mutex);
        lines_.push_back({.log_length = medium_.log.size(), .text = std::exchange(line_, {})});
        return true;
    }
    void receive_ready() override {}
    void connect(CharPeer* /*peer*/) override {}
    [[nodiscard]] const std::vector<Line>& lines() const { return lines_; }

private:
    MemoryFile::Medium& medium_;
    std::string line_;
    std::vector<Line> lines_;
};

int complain(const std::string& message) {
    (void)std::fprintf(stderr, "crash_record: %s\n", message.c_str());
    return 1;
}

Result<std::unique_ptr<BlockBackend>> open_disk(std::string_view format, MemoryFile::Medium& medium) {
    auto file = std::make_unique<MemoryFile>(medium);
    if (format == "raw") return std::make_unique<block::RawDisk>(std::move(file));
    auto log = std::make_unique<block::BlockLog>();
    auto image = block::qcow2::Image::open(std::move(file), nullptr, {}, *log);
    if (!image) return std::unexpected(image.error());
    return std::make_unique<block::qcow2::Qcow2Disk>(std::move(log), *std::move(image),
                                                     block::qcow2::DiskSettings{.name = "memory"});
}

void put(std::ofstream& out, u64 kind, u64 offset, std::string_view bytes, u64 length) {
    const std::array<u64, 3> head{kind, offset, length};
    out.write(reinterpret_cast<const char*>(head.data()), sizeof(head));
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

bool save(const std::string& path, const MemoryFile::Medium& medium, const Listener& listener) {
    std::ofstream out(path, std::ios::binary);
    auto line = listener.lines().begin();
    for (std::size_t i = 0; i <= medium.log.size(); ++i) {
        for (; line != listener.lines().end() && line->log_length == i; ++line)
            put(out, kSaid, 0, line->text, line->text.size());
        if (i == medium.log.size()) break;
        const auto& event = medium.log[i];
        const std::string_view bytes(reinterpret_cast<const char*>(event.bytes.data()), event.bytes.size());
        put(out, static_cast<u64>(event.kind), event.offset, bytes, event.length);
    }
    return out.good();
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 6) return complain("usage: crash_record KERNEL INITRD raw|qcow2 IMAGE LOG");
    MemoryFile::Medium medium;
    std::ifstream in(argv[4], std::ios::binary);
    medium.bytes.assign(std::istreambuf_iterator<char>(in), {});
    medium.logging = true;
    auto disk = open_disk(argv[3], medium);
    if (!disk) return complain(disk.error().message);
    Listener listener(medium);
    {
        auto vm = Vm::create(kCpus, OnReset::End);
        if (!vm) return complain(vm.error().message);
        const auto built = build_machine(**vm, {.cpus = kCpus,
                                                .kernel = argv[1],
                                                .initrd = argv[2],
                                                .cmdline = "console=ttyS0 quiet rdinit=/crash",
                                                .disks = {{.backend = disk->get()}},
                                                .serial = &listener});
        if (!built) return complain(built.error().message);
        (*vm)->start();
        if ((*vm)->wait().kind != Ending::Kind::PoweredOff) return complain("the guest did not power off");
    }
    return save(argv[5], medium, listener) ? 0 : complain("the log cannot be written");
}
