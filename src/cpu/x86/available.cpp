#include "cpu/x86/available.h"

#include <optional>

#include "cpu/x86/state.h"

namespace tessera::x86 {

namespace {

// [APM 3 appendix D]. Besides this, what is VEX encoded and no general-purpose instruction needs AVX.
std::optional<Feature> feature_of(Mnemonic mnemonic) {
    using enum Mnemonic;
    switch (mnemonic) {
        case Adcx:
        case Adox: return Feature::Adx;
        case Aesdec:
        case Aesdeclast:
        case Aesenc:
        case Aesenclast:
        case Aesimc:
        case Aeskeygenassist:
        case Vaesdec:
        case Vaesdeclast:
        case Vaesenc:
        case Vaesenclast:
        case Vaesimc:
        case Vaeskeygenassist: return Feature::Aes;
        case Andn:
        case Bextr:
        case Blsi:
        case Blsmsk:
        case Blsr:
        case Tzcnt: return Feature::Bmi1;
        case Bzhi:
        case Mulx:
        case Pdep:
        case Pext:
        case Rorx:
        case Sarx:
        case Shlx:
        case Shrx: return Feature::Bmi2;
        case Clflushopt: return Feature::Clflushopt;
        case Clwb: return Feature::Clwb;
        case Clzero: return Feature::Clzero;
        case Cmpxchg16b: return Feature::Cmpxchg16b;
        case Crc32: return Feature::Sse42;
        case Invpcid: return Feature::Invpcid;
        case Lzcnt: return Feature::Lzcnt;
        case Monitor:
        case Mwait: return Feature::Monitor;
        case Movbe: return Feature::Movbe;
        case Pclmulqdq:
        case Vpclmulqdq: return Feature::Pclmulqdq;
        case Popcnt: return Feature::Popcnt;
        case Rdfsbase:
        case Rdgsbase:
        case Wrfsbase:
        case Wrgsbase: return Feature::Fsgsbase;
        case Rdpid: return Feature::Rdpid;
        case Rdrand: return Feature::Rdrand;
        case Rdseed: return Feature::Rdseed;
        case Rdtscp: return Feature::Rdtscp;
        case Sha1msg1:
        case Sha1msg2:
        case Sha1nexte:
        case Sha1rnds4:
        case Sha256msg1:
        case Sha256msg2:
        case Sha256rnds2: return Feature::Sha;
        case Clac:
        case Stac: return Feature::Smap;
        case Vcvtph2ps:
        case Vcvtps2ph: return Feature::F16c;
        case Xgetbv:
        case Xsetbv:
        case Xsave:
        case Xrstor: return Feature::Xsave;
        case Xsavec: return Feature::Xsavec;
        case Xsaveopt: return Feature::Xsaveopt;
        case Xsaves:
        case Xrstors: return Feature::Xsaves;
        default: break;
    }
    if (mnemonic >= Vfmadd132pd && mnemonic <= Vfnmsub231ss) return Feature::Fma;  // one run of names
    return std::nullopt;
}

void become(Insn& in, Mnemonic mnemonic) {
    in.mnemonic = mnemonic;
    in.mandatory_prefix = 0;
    in.flags.set(InsnFlag::Rep);
    in.flags_read = 0;
    in.flags_written = static_cast<u16>(eflags::kZf);
    in.flags_undefined = static_cast<u16>(eflags::kStatus & ~eflags::kZf);
}

}  // namespace

bool adapt_to(FeatureLevel level, Insn& in) {
    if (level == FeatureLevel::Max) return true;  // all there is
    if (in.has(InsnFlag::Vex) && in.insn_class != InsnClass::Integer && !has_feature(level, Feature::Avx))
        return false;
    const std::optional<Feature> feature = feature_of(in.mnemonic);
    if (!feature || has_feature(level, *feature)) return true;
    if (in.mnemonic == Mnemonic::Lzcnt)
        become(in, Mnemonic::Bsr);
    else if (in.mnemonic == Mnemonic::Tzcnt)
        become(in, Mnemonic::Bsf);
    else
        return false;
    return true;
}

DecodeStatus decode(std::span<const u8> bytes, CodeSize size, FeatureLevel level, Insn& out) {
    const DecodeStatus status = decode(bytes, size, out);
    return status == DecodeStatus::Ok && !adapt_to(level, out) ? DecodeStatus::Invalid : status;
}

}  // namespace tessera::x86
