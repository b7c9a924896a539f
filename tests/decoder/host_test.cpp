// Our decoder against the processor itself, 64-bit mode: every encoding we call an instruction must take
// exactly its length and not be #UD, every encoding we call invalid must be #UD.
#include <array>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <map>
#include <string>
#include <vector>

#include "cpu/x86/insn.h"
#include "tests/decoder/host_oracle.h"
#include "tests/decoder/known_differences.h"
#include "tests/decoder/zydis_compare.h"

namespace tessera::x86::test {
namespace {

constexpr size_t kProbeBytes = 15;

// Instructions that are #UD in user mode, or always.
bool undefined_in_user_mode(Mnemonic mnemonic) {
    switch (mnemonic) {
        case Mnemonic::Clac:
        case Mnemonic::Stac:
        case Mnemonic::Monitor:
        case Mnemonic::Mwait:
        case Mnemonic::Rsm:
        case Mnemonic::Sysenter:  // in long mode, on AMD
        case Mnemonic::Sysexit:
        case Mnemonic::Ud0:
        case Mnemonic::Ud1:
        case Mnemonic::Ud2: return true;
        default: return false;
    }
}

// What would leave the sandbox or never return.
bool may_run(const Insn& insn, std::span<const u8> bytes) {
    if (insn.mnemonic == Mnemonic::Syscall || insn.mnemonic == Mnemonic::Int) return false;
    if (insn.operand_count > 0 && insn.is(0, OperandKind::Relative)) {
        const auto distance = static_cast<s64>(insn.immediate);
        return distance >= 0 || distance < -static_cast<s64>(insn.length);
    }
    // VMCALL and VMMCALL would reach a hypervisor.
    for (size_t i = 0; i + 2 < bytes.size(); ++i)
        if (bytes[i] == 0x0f && bytes[i + 1] == 0x01 && (bytes[i + 2] == 0xc1 || bytes[i + 2] == 0xd9))
            return false;
    return true;
}

// Encodings the processor takes though the manuals (and we) call them #UD.
bool accepted_against_the_manuals(std::span<const u8> bytes) {
    // LOCK VERW of memory: the access faults before LOCK does.
    if (bytes[0] == 0xf0 && bytes[1] == 0x0f && bytes[2] == 0x00 && (bytes[3] >> 3 & 7) == 5) return true;
    // VPERMQ and VPERMPD with VEX.W 0.
    const bool vex3 = bytes[0] == 0xc4 && (bytes[1] & 0x1f) == 3;
    return vex3 && (bytes[2] & 0x87) == 0x05 && (bytes[3] == 0x00 || bytes[3] == 0x01);
}

class HostDiffer {
public:
    void check(const std::vector<u8>& bytes) {
        Insn insn;
        const DecodeStatus status = decode(bytes, CodeSize::Bits64, insn);
        if (!may_run(insn, bytes)) return;
        ++cases_;
        if (status == DecodeStatus::Invalid) {
            if (oracle_.probe(bytes) == HostVerdict::Undefined || accepted_against_the_manuals(bytes)) return;
            if (compare_with_zydis(bytes, CodeSize::Bits64).explanation != nullptr) return;  // not offered
            report("host accepts", bytes, insn);
            return;
        }
        if (status != DecodeStatus::Ok) return;
        const std::span<const u8> all(bytes);
        const HostVerdict whole = oracle_.probe(all.first(insn.length));
        if (whole == HostVerdict::Incomplete) {
            report("host wants more", bytes, insn);
        } else if (whole == HostVerdict::Undefined) {
            if (!undefined_in_user_mode(insn.mnemonic)) report("host says #UD", bytes, insn);
        } else if (oracle_.probe(all.first(insn.length - 1u)) != HostVerdict::Incomplete) {
            report("host wants less", bytes, insn);
        }
    }

    void expect_agreement() {
        fmt::print("{} encodings\n", cases_);
        std::string text;
        for (const auto& [where, found] : found_)
            text += fmt::format("{}: {} times, e.g. {}\n", where, found.first, found.second);
        EXPECT_TRUE(found_.empty()) << text;
    }

private:
    void report(const char* what, const std::vector<u8>& bytes, const Insn& insn) {
        auto& found = found_[fmt::format("{} {} map {} opcode {:02x}", what, x86::name(insn.mnemonic),
                                         insn.map, insn.opcode)];
        if (found.first++ != 0) return;
        for (const u8 b : bytes) found.second += fmt::format(" {:02x}", b);
        found.second += fmt::format(" length {} signal {}", insn.length, oracle_.stop_signal());
    }

    HostOracle oracle_;
    u64 cases_ = 0;
    std::map<std::string, std::pair<u64, std::string>> found_;
};

class DecoderAgainstHostTest : public testing::Test {
protected:
    void SetUp() override {
        if (!HostOracle::available()) GTEST_SKIP() << "needs an AMD processor with FSGSBASE";
    }
};

constexpr u8 kTail[] = {0x51, 0x82, 0x93, 0x24, 0x45, 0xa6, 0xb7, 0x08,
                        0x19, 0x3a, 0x2b, 0x1c, 0x0d, 0x7e, 0x6f};

std::vector<u8> with_tail(std::initializer_list<u8> head, std::initializer_list<u8> more) {
    std::vector<u8> bytes(head);
    bytes.insert(bytes.end(), more);
    bytes.insert(bytes.end(), std::begin(kTail), std::end(kTail));
    bytes.resize(kProbeBytes);
    return bytes;
}

// All registers, and each way to address memory, with every modrm.reg.
bool interesting(unsigned modrm) {
    const unsigned rm = modrm & 7;
    return modrm >= 0xc0 || rm == 0 || rm == 4 || rm == 5;
}

void sweep_legacy(std::initializer_list<u8> escape) {
    HostDiffer differ;
    for (const std::initializer_list<u8>& prefix :
         std::initializer_list<std::initializer_list<u8>>{{},
                                                          {0x66},
                                                          {0xf3},
                                                          {0xf2},
                                                          {0x48},
                                                          {0x66, 0x48},
                                                          {0xf3, 0x48},
                                                          {0xf2, 0x48},
                                                          {0xf0},
                                                          {0x66, 0xf3}}) {
        for (unsigned opcode = 0; opcode < 256; ++opcode)
            for (unsigned modrm = 0; modrm < 256; ++modrm) {
                if (!interesting(modrm)) continue;
                std::vector<u8> head(prefix);
                head.insert(head.end(), escape);
                head.push_back(static_cast<u8>(opcode));
                head.push_back(static_cast<u8>(modrm));
                head.insert(head.end(), std::begin(kTail), std::end(kTail));
                head.resize(kProbeBytes);
                differ.check(head);
            }
    }
    differ.expect_agreement();
}

TEST_F(DecoderAgainstHostTest, OneByteOpcodesAgree) {
    sweep_legacy({});
}
TEST_F(DecoderAgainstHostTest, TwoByteOpcodesAgree) {
    sweep_legacy({0x0f});
}
TEST_F(DecoderAgainstHostTest, ThreeByte38OpcodesAgree) {
    sweep_legacy({0x0f, 0x38});
}
TEST_F(DecoderAgainstHostTest, ThreeByte3aOpcodesAgree) {
    sweep_legacy({0x0f, 0x3a});
}

void sweep_vex(unsigned map) {
    HostDiffer differ;
    for (const unsigned vvvv : {0x78u, 0x50u})
        for (unsigned w_l_pp = 0; w_l_pp < 16; ++w_l_pp)
            for (unsigned opcode = 0; opcode < 256; ++opcode)
                for (unsigned modrm = 0; modrm < 256; ++modrm) {
                    if (modrm % 8 != 1 || modrm / 64 == 1 || modrm / 64 == 2) continue;
                    const u8 last = static_cast<u8>((w_l_pp & 8) << 4 | vvvv | (w_l_pp & 7));
                    differ.check(with_tail({0xc4, static_cast<u8>(0xe0 | map), last},
                                           {static_cast<u8>(opcode), static_cast<u8>(modrm)}));
                }
    differ.expect_agreement();
}

TEST_F(DecoderAgainstHostTest, Vex0fOpcodesAgree) {
    sweep_vex(1);
}
TEST_F(DecoderAgainstHostTest, Vex0f38OpcodesAgree) {
    sweep_vex(2);
}
TEST_F(DecoderAgainstHostTest, Vex0f3aOpcodesAgree) {
    sweep_vex(3);
}

}  // namespace
}  // namespace tessera::x86::test
