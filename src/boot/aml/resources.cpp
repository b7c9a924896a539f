// Resource descriptors [ACPI 6.5 6.4.2, 6.4.3].
#include "base/assert.h"
#include "boot/aml/aml.h"
#include "boot/bytes.h"

namespace tessera::boot::aml {

namespace {

// Small items: the tag byte holds type and length.
constexpr u8 kIrqNoFlags = 0x22;
constexpr u8 kIrqWithFlags = 0x23;
constexpr u8 kIoPort = 0x47;
constexpr u8 kEndTag = 0x79;
// Large items.
constexpr u8 kMemory32Fixed = 0x86;
constexpr u8 kDwordAddress = 0x87;
constexpr u8 kWordAddress = 0x88;
constexpr u8 kExtendedInterrupt = 0x89;
constexpr u8 kQwordAddress = 0x8a;

enum class WindowType : u8 { Memory = 0, Io = 1, Bus = 2 };
// General flags: minimum and maximum fixed, decoded by this device, which hands the range down.
constexpr u8 kWindowFlags = 0x0c;
constexpr u8 kMemoryReadWrite = 0x01;
constexpr u8 kIoEntireRange = 0x03;

template <typename T>
void window(ByteWriter& out, u8 tag, WindowType type, u8 type_flags, T first, T last) {
    TESSERA_ASSERT(first <= last, "windows are written in our source");
    out.put8(tag).put(static_cast<u16>(3 + 5 * sizeof(T))).put(type).put8(kWindowFlags).put8(type_flags);
    out.put(T{0}).put(first).put(last).put(T{0}).put(static_cast<T>(last - first + 1));
}

void append(std::vector<std::byte>& to, const ByteWriter& out) {
    to.insert(to.end(), out.bytes().begin(), out.bytes().end());
}

}  // namespace

Resources& Resources::io(u16 base, u8 length, u8 alignment) {
    constexpr u8 kDecode16 = 1;
    ByteWriter out;
    out.put8(kIoPort).put8(kDecode16).put(base).put(base).put(alignment).put(length);
    append(bytes_, out);
    return *this;
}

Resources& Resources::isa_irq(u8 irq) {
    TESSERA_ASSERT(irq < 16, "boards have ISA interrupts 0-15");
    ByteWriter out;
    out.put8(kIrqNoFlags).put(static_cast<u16>(1U << irq));
    append(bytes_, out);
    return *this;
}

Resources& Resources::irq(u8 irq, Trigger trigger, Polarity polarity, Sharing sharing) {
    TESSERA_ASSERT(irq < 16, "boards have ISA interrupts 0-15");
    return irqs(static_cast<u16>(1U << irq), trigger, polarity, sharing);
}

Resources& Resources::irqs(u16 mask, Trigger trigger, Polarity polarity, Sharing sharing) {
    ByteWriter out;
    const unsigned flags = (trigger == Trigger::Edge ? 1U : 0U) | (polarity == Polarity::Low ? 8U : 0U) |
                           (sharing == Sharing::Shared ? 0x10U : 0U);
    out.put8(kIrqWithFlags).put(mask).put8(flags);
    append(bytes_, out);
    return *this;
}

Resources& Resources::interrupt(u32 gsi, Trigger trigger, Polarity polarity, Sharing sharing) {
    constexpr unsigned kConsumer = 1;
    const unsigned flags = kConsumer | (trigger == Trigger::Edge ? 2U : 0U) |
                           (polarity == Polarity::Low ? 4U : 0U) | (sharing == Sharing::Shared ? 8U : 0U);
    ByteWriter out;
    out.put8(kExtendedInterrupt).put16(6).put8(flags).put8(1).put(gsi);
    append(bytes_, out);
    return *this;
}

Resources& Resources::memory32(u32 base, u32 length) {
    ByteWriter out;
    out.put8(kMemory32Fixed).put16(9).put8(kMemoryReadWrite).put(base).put(length);
    append(bytes_, out);
    return *this;
}

Resources& Resources::bus_window(u16 first, u16 last) {
    ByteWriter out;
    window<u16>(out, kWordAddress, WindowType::Bus, 0, first, last);
    append(bytes_, out);
    return *this;
}

Resources& Resources::io_window(u16 first, u16 last) {
    ByteWriter out;
    window<u16>(out, kWordAddress, WindowType::Io, kIoEntireRange, first, last);
    append(bytes_, out);
    return *this;
}

Resources& Resources::memory_window(u32 first, u32 last) {
    ByteWriter out;
    window<u32>(out, kDwordAddress, WindowType::Memory, kMemoryReadWrite, first, last);
    append(bytes_, out);
    return *this;
}

Resources& Resources::memory_window64(u64 first, u64 last) {
    ByteWriter out;
    window<u64>(out, kQwordAddress, WindowType::Memory, kMemoryReadWrite, first, last);
    append(bytes_, out);
    return *this;
}

Aml Resources::finish() const {
    ByteWriter out;
    out.append(bytes_).put8(kEndTag).put8(0);  // checksum 0: not checked [ACPI 6.5 6.4.2.9]
    return buffer(out.bytes());
}

}  // namespace tessera::boot::aml
