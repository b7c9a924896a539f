#include "boot/aml/aml.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "base/assert.h"
#include "boot/bytes.h"

namespace tessera::boot::aml {

namespace {

// [ACPI 6.5 20.2]; two-byte opcodes start with kExtended.
enum class Op : u8 {
    Zero = 0x00,
    One = 0x01,
    Name = 0x08,
    BytePrefix = 0x0a,
    WordPrefix = 0x0b,
    DwordPrefix = 0x0c,
    StringPrefix = 0x0d,
    QwordPrefix = 0x0e,
    Scope = 0x10,
    Buffer = 0x11,
    Package = 0x12,
    Method = 0x14,
    DualName = 0x2e,
    MultiName = 0x2f,
    Extended = 0x5b,
    Local0 = 0x60,
    Arg0 = 0x68,
    Store = 0x70,
    Decrement = 0x76,
    ShiftLeft = 0x79,
    And = 0x7b,
    Or = 0x7d,
    FindSetRightBit = 0x82,
    Notify = 0x86,
    CreateDwordField = 0x8a,
    CreateWordField = 0x8b,
    LogicalAnd = 0x90,
    LogicalNot = 0x92,
    LogicalEqual = 0x93,
    If = 0xa0,
    Else = 0xa1,
    Return = 0xa4,
    Ones = 0xff,
};
enum class ExtendedOp : u8 { OperationRegion = 0x80, Field = 0x81, Device = 0x82 };

// [ACPI 6.5 20.2.4]: the length counts its own bytes. Six bits in one byte, else four and up to three more
// bytes.
void put_length(ByteWriter& out, std::size_t size, bool counts_itself = true) {
    std::size_t width = 1;
    const auto total = [&] { return size + (counts_itself ? width : 0); };
    if (total() > 0x3f) width = 2;
    if (width == 2 && total() > 0xfff) width = 3;
    if (width == 3 && total() > 0xf'ffff) width = 4;
    TESSERA_ASSERT(total() <= 0xfff'ffff, "no guest, file or user makes our tables that large");
    std::size_t rest = total();
    if (width == 1) {
        out.put8(static_cast<unsigned>(rest));
        return;
    }
    out.put8(static_cast<unsigned>((width - 1) << 6 | (rest & 0xf)));
    for (rest >>= 4; width > 1; --width, rest >>= 8) out.put8(rest & 0xff);
}

Aml op(Op code, std::initializer_list<Aml> operands) {
    ByteWriter out;
    out.put(code);
    for (const Aml& operand : operands) out.append(operand);
    return out.take();
}

Aml join(Terms terms) {
    ByteWriter out;
    for (const Aml& term : terms) out.append(term);
    return out.take();
}
Terms terms_of(const std::initializer_list<Aml>& list) {
    return {list.begin(), list.size()};
}

// opcode, length, head, body
Aml block(Op code, const Aml& head, Terms body) {
    const Aml inner = join(body);
    ByteWriter out;
    out.put(code);
    put_length(out, head.size() + inner.size());
    return out.append(head).append(inner).take();
}
Aml extended_block(ExtendedOp code, const Aml& head, Terms body) {
    const Aml inner = join(body);
    ByteWriter out;
    out.put(Op::Extended).put(code);
    put_length(out, head.size() + inner.size());
    return out.append(head).append(inner).take();
}

void put_segment(ByteWriter& out, std::string_view segment) {
    TESSERA_ASSERT(!segment.empty() && segment.size() <= 4, "names are written in our source");
    for (const char c : segment)
        TESSERA_ASSERT((c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_',
                       "names are written in our source");
    TESSERA_ASSERT(segment[0] < '0' || segment[0] > '9', "names are written in our source");
    out.fixed_text(segment, 4, '_');
}

unsigned hex_digit(char c) {
    const auto lower = static_cast<char>(c | 0x20);
    TESSERA_ASSERT((c >= '0' && c <= '9') || (lower >= 'a' && lower <= 'f'), "ids are written in our source");
    return static_cast<unsigned>(c <= '9' ? c - '0' : lower - 'a' + 10);
}

}  // namespace

Aml integer(u64 value) {
    ByteWriter out;
    if (value == 0) return out.put(Op::Zero).take();
    if (value == 1) return out.put(Op::One).take();
    if (value == ~u64{0}) return out.put(Op::Ones).take();
    if (value <= 0xff) return out.put(Op::BytePrefix).put(static_cast<u8>(value)).take();
    if (value <= 0xffff) return out.put(Op::WordPrefix).put(static_cast<u16>(value)).take();
    if (value <= 0xffff'ffff) return out.put(Op::DwordPrefix).put(static_cast<u32>(value)).take();
    return out.put(Op::QwordPrefix).put(value).take();
}

Aml string(std::string_view text) {
    for (const char c : text) TESSERA_ASSERT(c > 0 && c < 0x7f, "strings are written in our source");
    ByteWriter out;
    return out.put(Op::StringPrefix).text(text).put8(0).take();
}

Aml eisa_id(std::string_view id) {
    TESSERA_ASSERT(id.size() == 7, "ids are written in our source");
    u32 value = 0;
    for (std::size_t n = 0; n < 3; ++n) value = value << 5 | (static_cast<unsigned>(id[n]) - 0x40);
    for (std::size_t n = 3; n < 7; ++n) value = value << 4 | hex_digit(id[n]);
    // Stored big-endian: the compressed form goes from left to right [ACPI 6.5 19.3.4].
    ByteWriter out;
    return out.put(Op::DwordPrefix).put(__builtin_bswap32(value)).take();
}

Aml buffer(std::span<const std::byte> bytes) {
    const Aml content(bytes.begin(), bytes.end());
    return block(Op::Buffer, integer(bytes.size()), {&content, 1});
}

Aml uuid(std::string_view text) {
    // Byte n of the buffer is the text's digit pair at this position [ACPI 6.5 19.6.142].
    constexpr std::array<u8, 16> kPositions = {6, 4, 2, 0, 11, 9, 16, 14, 19, 21, 24, 26, 28, 30, 32, 34};
    TESSERA_ASSERT(text.size() == 36, "ids are written in our source");
    ByteWriter bytes;
    for (const u8 at : kPositions) bytes.put8(hex_digit(text[at]) << 4 | hex_digit(text[at + 1]));
    return buffer(bytes.bytes());
}

Aml package(Terms elements) {
    TESSERA_ASSERT(elements.size() <= 255, "packages are built in our source");
    return block(Op::Package, {static_cast<std::byte>(elements.size())}, elements);
}
Aml package(std::initializer_list<Aml> elements) {
    return package(terms_of(elements));
}

Aml path(std::string_view text) {
    ByteWriter out;
    std::size_t at = 0;
    while (at < text.size() && (text[at] == '\\' || text[at] == '^')) out.put8(static_cast<u8>(text[at++]));
    std::vector<std::string_view> segments;
    for (std::string_view rest = text.substr(at); !rest.empty();) {
        const std::size_t dot = std::min(rest.find('.'), rest.size());
        segments.push_back(rest.substr(0, dot));
        rest.remove_prefix(std::min(dot + 1, rest.size()));
    }
    if (segments.empty()) return out.put8(0).take();
    if (segments.size() == 2) out.put(Op::DualName);
    if (segments.size() > 2) out.put(Op::MultiName).put(static_cast<u8>(segments.size()));
    for (const std::string_view segment : segments) put_segment(out, segment);
    return out.take();
}

Aml name(std::string_view object, const Aml& value) {
    return op(Op::Name, {path(object), value});
}
Aml scope(std::string_view object, Terms body) {
    return block(Op::Scope, path(object), body);
}
Aml scope(std::string_view object, std::initializer_list<Aml> body) {
    return scope(object, terms_of(body));
}
Aml device(std::string_view object, Terms body) {
    return extended_block(ExtendedOp::Device, path(object), body);
}
Aml device(std::string_view object, std::initializer_list<Aml> body) {
    return device(object, terms_of(body));
}

Aml method(std::string_view object, unsigned arguments, Serialize serialize,
           std::initializer_list<Aml> body) {
    TESSERA_ASSERT(arguments <= 7, "methods are written in our source");
    Aml head = path(object);
    head.push_back(static_cast<std::byte>(arguments | (serialize == Serialize::Yes ? 8U : 0U)));
    return block(Op::Method, head, terms_of(body));
}

Aml operation_region(std::string_view object, Space space, u64 offset, u64 size) {
    ByteWriter out;
    out.put(Op::Extended).put(ExtendedOp::OperationRegion).append(path(object)).put(space);
    return out.append(integer(offset)).append(integer(size)).take();
}

Aml field(std::string_view region, Access access, std::initializer_list<FieldUnit> units) {
    ByteWriter body;
    for (const FieldUnit& unit : units) {
        if (unit.name.empty()) {
            body.put8(0);
        } else {
            put_segment(body, unit.name);
        }
        put_length(body, unit.bits, false);
    }
    Aml head = path(region);
    head.push_back(static_cast<std::byte>(access));  // no lock, preserve
    const Aml list = body.take();
    return extended_block(ExtendedOp::Field, head, {&list, 1});
}

Aml arg(unsigned n) {
    TESSERA_ASSERT(n < 7, "methods are written in our source");
    return {static_cast<std::byte>(static_cast<unsigned>(Op::Arg0) + n)};
}
Aml local(unsigned n) {
    TESSERA_ASSERT(n < 8, "methods are written in our source");
    return {static_cast<std::byte>(static_cast<unsigned>(Op::Local0) + n)};
}
Aml return_value(const Aml& value) {
    return op(Op::Return, {value});
}
Aml store(const Aml& source, const Aml& target) {
    return op(Op::Store, {source, target});
}
Aml and_into(const Aml& a, const Aml& b, const Aml& target) {
    return op(Op::And, {a, b, target});
}
Aml or_into(const Aml& a, const Aml& b, const Aml& target) {
    return op(Op::Or, {a, b, target});
}
Aml shift_left(const Aml& value, const Aml& count, const Aml& target) {
    return op(Op::ShiftLeft, {value, count, target});
}
Aml find_set_right_bit(const Aml& value, const Aml& target) {
    return op(Op::FindSetRightBit, {value, target});
}
Aml decrement(const Aml& target) {
    return op(Op::Decrement, {target});
}
Aml equal(const Aml& a, const Aml& b) {
    return op(Op::LogicalEqual, {a, b});
}
Aml logical_not(const Aml& a) {
    return op(Op::LogicalNot, {a});
}
Aml logical_and(const Aml& a, const Aml& b) {
    return op(Op::LogicalAnd, {a, b});
}
Aml if_then(const Aml& condition, std::initializer_list<Aml> body) {
    return block(Op::If, condition, terms_of(body));
}
Aml otherwise(std::initializer_list<Aml> body) {
    return block(Op::Else, {}, terms_of(body));
}
Aml create_word_field(const Aml& buffer_term, const Aml& byte_index, std::string_view object) {
    return op(Op::CreateWordField, {buffer_term, byte_index, path(object)});
}
Aml create_dword_field(const Aml& buffer_term, const Aml& byte_index, std::string_view object) {
    return op(Op::CreateDwordField, {buffer_term, byte_index, path(object)});
}
Aml notify(std::string_view object, u64 value) {
    return op(Op::Notify, {path(object), integer(value)});
}

}  // namespace tessera::boot::aml
