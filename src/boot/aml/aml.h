// ACPI Machine Language as bytes: each function gives the encoding of one ASL construct, and they nest as ASL
// does. Names and resources are ours to write: a malformed one is our mistake and asserts.
// Leaves out what no table of ours needs (events, mutexes, loops, bank and index fields). [ACPI 6.5 20.2]
#pragma once

#include <initializer_list>
#include <span>
#include <string_view>
#include <vector>

#include "base/types.h"

namespace tessera::boot::aml {

using Aml = std::vector<std::byte>;
using Terms = std::span<const Aml>;

// Data.
[[nodiscard]] Aml integer(u64 value);             // in its shortest form
[[nodiscard]] Aml string(std::string_view text);  // ASCII without zeros
[[nodiscard]] Aml eisa_id(std::string_view id);   // "PNP0501": three letters, four hexadecimal digits
[[nodiscard]] Aml buffer(std::span<const std::byte> bytes);
[[nodiscard]] Aml uuid(std::string_view text);  // ToUUID("33db4d5b-1ff7-401c-9657-7441c03dd766")
[[nodiscard]] Aml package(Terms elements);      // at most 255
[[nodiscard]] Aml package(std::initializer_list<Aml> elements);

// Names: "COM1", "\\_SB.PCI0", "^^ISA_"; segments shorter than four are padded with underscores.
[[nodiscard]] Aml path(std::string_view text);
[[nodiscard]] Aml name(std::string_view object, const Aml& value);
[[nodiscard]] Aml scope(std::string_view object, Terms body);
[[nodiscard]] Aml scope(std::string_view object, std::initializer_list<Aml> body);
[[nodiscard]] Aml device(std::string_view object, Terms body);
[[nodiscard]] Aml device(std::string_view object, std::initializer_list<Aml> body);
enum class Serialize : u8 { No, Yes };
[[nodiscard]] Aml method(std::string_view object, unsigned arguments, Serialize serialize,
                         std::initializer_list<Aml> body);

// Hardware.
enum class Space : u8 { SystemMemory = 0, SystemIo = 1, PciConfig = 2 };
[[nodiscard]] Aml operation_region(std::string_view object, Space space, u64 offset, u64 size);
enum class Access : u8 { Any = 0, Byte = 1, Word = 2, Dword = 3, Qword = 4 };
struct FieldUnit {
    std::string_view name;  // four letters at most; empty: reserved bits
    u32 bits;
};
[[nodiscard]] Aml field(std::string_view region, Access access, std::initializer_list<FieldUnit> units);

// Statements and expressions.
[[nodiscard]] Aml arg(unsigned n);    // Arg0 - Arg6
[[nodiscard]] Aml local(unsigned n);  // Local0 - Local7
[[nodiscard]] Aml return_value(const Aml& value);
[[nodiscard]] Aml store(const Aml& source, const Aml& target);
[[nodiscard]] Aml and_into(const Aml& a, const Aml& b, const Aml& target);
[[nodiscard]] Aml or_into(const Aml& a, const Aml& b, const Aml& target);
[[nodiscard]] Aml shift_left(const Aml& value, const Aml& count, const Aml& target);
// One more than the number of the lowest bit that is set; 0: none is.
[[nodiscard]] Aml find_set_right_bit(const Aml& value, const Aml& target);
[[nodiscard]] Aml decrement(const Aml& target);
[[nodiscard]] Aml equal(const Aml& a, const Aml& b);
[[nodiscard]] Aml logical_not(const Aml& a);
[[nodiscard]] Aml logical_and(const Aml& a, const Aml& b);
[[nodiscard]] Aml if_then(const Aml& condition, std::initializer_list<Aml> body);
[[nodiscard]] Aml otherwise(std::initializer_list<Aml> body);
[[nodiscard]] Aml create_word_field(const Aml& buffer, const Aml& byte_index, std::string_view object);
[[nodiscard]] Aml create_dword_field(const Aml& buffer, const Aml& byte_index, std::string_view object);
[[nodiscard]] Aml notify(std::string_view object, u64 value);

// A _CRS or _PRS buffer [ACPI 6.5 6.4].
class Resources {
public:
    // Decodes all 16 address lines; `base` is where it is and stays.
    Resources& io(u16 base, u8 length, u8 alignment = 1);
    enum class Trigger : u8 { Edge, Level };
    enum class Polarity : u8 { High, Low };
    enum class Sharing : u8 { Exclusive, Shared };
    // Edge, active high, exclusive: the two-byte form.
    Resources& isa_irq(u8 irq);
    Resources& irq(u8 irq, Trigger trigger, Polarity polarity, Sharing sharing);
    // One of those in the mask, which lies in the second and third byte of the descriptor.
    Resources& irqs(u16 mask, Trigger trigger, Polarity polarity, Sharing sharing);
    Resources& interrupt(u32 gsi, Trigger trigger, Polarity polarity, Sharing sharing);
    Resources& memory32(u32 base, u32 length);  // fixed, read/write
    // What a host bridge hands down, [first, last].
    Resources& bus_window(u16 first, u16 last);
    Resources& io_window(u16 first, u16 last);
    Resources& memory_window(u32 first, u32 last);  // not cacheable, read/write
    Resources& memory_window64(u64 first, u64 last);
    // The buffer, with its end tag.
    [[nodiscard]] Aml finish() const;

private:
    std::vector<std::byte> bytes_;
};

}  // namespace tessera::boot::aml
