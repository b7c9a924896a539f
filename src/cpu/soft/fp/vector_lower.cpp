// Lowering of the vector instructions in the tables, and the entrance for all vector instructions.
#include "cpu/soft/fp/vector_lower.h"

#include <array>
#include <cpuid.h>

#include "cpu/soft/fp/vector_row.h"
#include "cpu/soft/lower.h"

namespace tessera::soft {

namespace {

using x86::Insn;
using x86::Mnemonic;
using x86::OperandKind;

// All rows of a mnemonic, chained; there are at most three.
class RowIndex {
public:
    RowIndex() {
        for (const auto& rows : {integer_rows(), float_rows(), immediate_rows()})
            for (const Row& row : rows) {
                add(row.legacy, row);
                add(row.vex, row);
            }
    }
    [[nodiscard]] std::span<const Row* const> of(Mnemonic mnemonic) const {
        return rows_[static_cast<unsigned>(mnemonic)];
    }

private:
    void add(Mnemonic mnemonic, const Row& row) {
        if (mnemonic == Mnemonic::Invalid) return;
        for (const Row*& slot : rows_[static_cast<unsigned>(mnemonic)])
            if (slot == nullptr) {
                slot = &row;
                return;
            }
    }
    std::array<std::array<const Row*, 3>, x86::kMnemonicCount> rows_{};
};

// What x86-64-v3 does not promise of the host.
bool host_has(u16 row_flags) {
    static const u16 missing = [] {
        unsigned a = 0, b = 0, c = 0, d = 0;
        unsigned none = kRowAes | kRowPclmul | kRowSha;
        if (__get_cpuid(1, &a, &b, &c, &d) != 0) {
            if ((c & bit_AES) != 0) none &= ~static_cast<unsigned>(kRowAes);
            if ((c & bit_PCLMUL) != 0) none &= ~static_cast<unsigned>(kRowPclmul);
        }
        if (__get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (b & bit_SHA) != 0)
            none &= ~static_cast<unsigned>(kRowSha);
        return static_cast<u16>(none);
    }();
    return (row_flags & missing) == 0;
}

template <Form F, bool Float>
Handler indirect(Source source, unsigned size) {
    if (source == Source::Vector) return vector_op<F, Source::Vector, 16, Float, Indirect>;
    if (source == Source::Gpr) {
        if constexpr (F != Form::Vex256) return vector_op<F, Source::Gpr, 8, Float, Indirect>;
        return nullptr;
    }
    const bool aligned = source == Source::MemoryAligned;
    switch (size) {
        case 1: return vector_op<F, Source::Memory, 1, Float, Indirect>;
        case 2: return vector_op<F, Source::Memory, 2, Float, Indirect>;
        case 4: return vector_op<F, Source::Memory, 4, Float, Indirect>;
        case 8: return vector_op<F, Source::Memory, 8, Float, Indirect>;
        case 16:
            return aligned ? vector_op<F, Source::MemoryAligned, 16, Float, Indirect>
                           : vector_op<F, Source::Memory, 16, Float, Indirect>;
        case 32:
            return aligned ? vector_op<F, Source::MemoryAligned, 32, Float, Indirect>
                           : vector_op<F, Source::Memory, 32, Float, Indirect>;
        default: return nullptr;
    }
}

// The row for this instruction's operands.
const Row* row_for(std::span<const Row* const> rows, const Insn& in, const x86::Operand& from) {
    const bool imm = has_immediate(in);
    const bool memory = from.kind == OperandKind::Memory;
    for (const Row* row : rows) {
        if (row == nullptr) break;
        if (((row->flags & kRowImm) != 0) != imm) continue;
        if (memory && (row->flags & kRowRegisterOnly) != 0) continue;
        if (!memory && (row->flags & kRowMemoryOnly) != 0) continue;
        // Only CVTSI2SS and CVTSI2SD have two rows that differ in the size of an integer.
        if ((row->flags & kRowWide) == 0 && row->fn128 == rows[0]->fn128 && rows[1] != nullptr &&
            (rows[1]->flags & kRowWide) != 0 && from.size == 8)
            continue;
        return row;
    }
    return nullptr;
}

Source source_of(const Row& row, OperandKind kind, Form form, unsigned size) {
    if (kind == OperandKind::Vector) return Source::Vector;
    if (kind == OperandKind::Gpr) return Source::Gpr;
    bool aligned = (row.flags & kRowAligned) != 0;
    if (form == Form::Legacy) aligned = size == 16 && (row.flags & kRowUnaligned) == 0;
    return aligned ? Source::MemoryAligned : Source::Memory;
}

}  // namespace

Handler lower_table_op(const Insn& in, Op& op) {
    static const RowIndex index;
    const auto rows = index.of(in.mnemonic);
    const unsigned n = operands_before_immediate(in);
    if (rows[0] == nullptr || n == 0 || !in.is(0, OperandKind::Vector)) return nullptr;
    Form form = form_of(in);

    // Legacy: dst, src. VEX: dst, src or dst, a, b. A shift by an immediate has no other source than its
    // first.
    const unsigned last = form == Form::Legacy ? (n > 1 ? 1 : 0) : n - 1;
    const x86::Operand& from = in.operand[last];
    const Row* row = row_for(rows, in, from);
    if (row == nullptr || !host_has(row->flags)) return nullptr;
    if (form == Form::Vex256 && row->fn256 == nullptr) form = Form::Vex128;  // scalar: VEX.L is ignored
    const bool wide = form == Form::Vex256;
    const unsigned size = wide ? row->memory256 : row->memory128;
    VectorFn fn = wide ? row->fn256 : row->fn128;
    if (fn == nullptr) return nullptr;
    // The table and the decoder must agree on what is accessed.
    if (from.kind != OperandKind::Vector && from.size != size) return nullptr;

    op.r1 = in.operand[0].reg;
    op.r2 = form != Form::Legacy && n >= 3 ? in.operand[1].reg : op.r1;
    if ((row->flags & kRowImplicitXmm0) != 0) op.r2 = 0;
    if (from.kind == OperandKind::Gpr)
        op.r3 = gpr_offset(from);
    else if (from.kind == OperandKind::Vector)
        op.r3 = from.reg;
    op.imm = reinterpret_cast<u64>(fn);
    if ((row->flags & kRowImm) != 0) {
        const u64 number = in.immediate & (form == Form::Legacy && (row->flags & kRowImm3) != 0 ? 7 : 0xff);
        op.imm += number * kImmStride;
    }
    const Source source = source_of(*row, from.kind, form, size);
    if (Handler hot = lower_hot_op(in.mnemonic, form, source)) return hot;
    const bool is_float = (row->flags & kRowFloat) != 0;
    return for_form(form, [&]<Form F>() {
        return is_float ? indirect<F, true>(source, size) : indirect<F, false>(source, size);
    });
}

bool lower_vector(const Insn& in, Op& op, bool* /*ends_block*/) {
    for (auto* lower : {lower_vector_store, lower_vector_masked, lower_vector_gpr, lower_vector_string,
                        lower_vector_control, lower_table_op}) {
        if (const Handler handler = lower(in, op)) {
            op.fn = handler;
            return true;
        }
    }
    return false;
}

}  // namespace tessera::soft
