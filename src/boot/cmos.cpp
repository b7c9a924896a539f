#include <algorithm>

#include "boot/boot_linux.h"
#include "boot/e820.h"

// The layout is the PC/AT's and its successors' [RBIL CMOS.LST].
namespace tessera::boot {

namespace {

constexpr u8 kEquipment = 0x14;
constexpr u8 kBaseMemory = 0x15;            // KiB, 2 bytes
constexpr u8 kExtendedMemory = 0x17;        // KiB above 1 MiB, 2 bytes
constexpr u8 kChecksum = 0x2e;              // of 10h - 2Dh, big-endian
constexpr u8 kExtendedMemoryActual = 0x30;  // KiB above 1 MiB, 2 bytes
constexpr u8 kMemoryAbove16M = 0x34;        // 64 KiB units, 2 bytes
constexpr u8 kMemoryAbove4G = 0x5b;         // 64 KiB units, 3 bytes
constexpr u8 kCpusLessOne = 0x5f;

constexpr u8 kEquipmentFpu = 1 << 1;
constexpr u8 kEquipmentPs2Mouse = 1 << 2;
constexpr u8 kEquipmentKeyboard = 1 << 3;

}  // namespace

std::vector<CmosByte> cmos_values(const MemoryMap& memory, const BoardDescription& board) {
    const auto map = e820_of(memory, board);
    const u64 low_end = std::max(low_ram_end(map), kHighMemoryBase);
    std::vector<CmosByte> cmos;
    const auto put = [&](u8 index, u64 value, unsigned bytes) {
        for (unsigned n = 0; n < bytes; ++n)
            cmos.push_back({.index = static_cast<u8>(index + n), .value = static_cast<u8>(value >> (8 * n))});
    };
    const u64 extended_kib = std::min<u64>((low_end - kHighMemoryBase) / kKiB, 0xffff);
    const u64 above_16m =
        low_end > 16 * kMiB ? std::min<u64>((low_end - 16 * kMiB) / (64 * kKiB), 0xffff) : 0;
    u8 equipment = kEquipmentFpu;
    if (board.keyboard) equipment |= kEquipmentPs2Mouse | kEquipmentKeyboard;
    put(kEquipment, equipment, 1);
    put(kBaseMemory, kBaseMemoryEnd / kKiB, 2);
    put(kExtendedMemory, extended_kib, 2);
    unsigned sum = 0;
    for (const CmosByte& byte : cmos) sum += byte.value;
    put(kChecksum, sum >> 8, 1);
    put(kChecksum + 1, sum, 1);
    put(kExtendedMemoryActual, extended_kib, 2);
    put(kMemoryAbove16M, above_16m, 2);
    put(kMemoryAbove4G, std::min<u64>(high_ram_size(map) / (64 * kKiB), 0xff'ffff), 3);
    put(kCpusLessOne, std::min<u64>(board.cpu_count() - 1, 0xff), 1);
    return cmos;
}

}  // namespace tessera::boot
