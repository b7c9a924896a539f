; CPUID and model-specific registers: what belongs together must agree. [APM 3 appendix E], [SDM 4]
%include "guest.inc"
%macro CPUID_OF 1-2 0
    mov eax, %1
    mov ecx, %2
    cpuid
%endmacro
%macro READ_MSR 1
    mov ecx, %1
    rdmsr
%endmacro
%macro WRITE_MSR 3                  ; index, high, low
    mov ecx, %1
    mov edx, %2
    mov eax, %3
    wrmsr
%endmacro

TEST64 vendor_is_amd_on_both_leaves
    CPUID_OF 0
    EXPECT ebx, 'Auth'
    EXPECT edx, 'enti'
    EXPECT ecx, 'cAMD'
    CPUID_OF 0x80000000
    EXPECT ebx, 'Auth'
    EXPECT edx, 'enti'
    EXPECT ecx, 'cAMD'
    PASS

TEST64 cpuid_clears_upper_halves
    mov rax, 0x7777777700000000
    mov rbx, -1
    mov rcx, -1
    mov rdx, -1
    cpuid
    shr rax, 32
    EXPECTQ rax, 0
    shr rbx, 32
    EXPECTQ rbx, 0
    PASS

TEST64 osxsave_mirrors_cr4
    CPUID_OF 1
    EXPECT_BITS ecx, 1 << 27, 0
    mov rax, cr4
    or eax, 1 << 18
    mov cr4, rax
    CPUID_OF 1
    EXPECT_BITS ecx, 1 << 27, 1 << 27
    PASS

TEST64 apic_bit_follows_global_enable
    READ_MSR 0x1b
    EXPECT_BITS eax, 0x900, 0x900   ; enabled, bootstrap processor
    CPUID_OF 1
    EXPECT_BITS edx, 1 << 9, 1 << 9
    PASS

TEST64 features_that_long_mode_needs
    CPUID_OF 1
    mov eax, 1 << 0 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 13 | 1 << 15 | 1 << 24 | 1 << 25 | 1 << 26
    mov esi, edx
    and esi, eax                    ; FPU PSE TSC MSR PAE CX8 PGE CMOV FXSR SSE SSE2
    EXPECT esi, eax
    CPUID_OF 0x80000001
    mov eax, 1 << 11 | 1 << 20 | 1 << 29
    mov esi, edx
    and esi, eax                    ; SYSCALL NX LM
    EXPECT esi, eax
    PASS

TEST64 address_sizes
    CPUID_OF 0x80000008
    shr eax, 8
    and eax, 0xff
    EXPECT eax, 48                  ; linear
    PASS

TEST64 leaf_d_sizes_follow_xcr0
    mov rax, cr4
    or eax, 1 << 18
    mov cr4, rax
    CPUID_OF 0xd
    EXPECT ebx, 576                 ; XCR0 is 1
    xor ecx, ecx
    xor edx, edx
    mov eax, 7
    xsetbv
    CPUID_OF 0xd
    EXPECT ebx, 832                 ; with AVX
    EXPECT_BITS eax, 7, 7
    CPUID_OF 0xd, 2
    EXPECT eax, 256
    EXPECT ebx, 576
    PASS

TEST64 leaves_beyond_the_last_are_zero_on_amd
    CPUID_OF 0x80000000
    inc eax
    xor ecx, ecx
    cpuid
    EXPECT eax, 0
    EXPECT ebx, 0
    EXPECT ecx, 0
    EXPECT edx, 0
    PASS

TEST64 xsetbv_rules
    mov rax, cr4
    or eax, 1 << 18
    mov cr4, rax
    xor ecx, ecx
    xor edx, edx
    mov eax, 2
    FAULTS xGP, 0, xsetbv           ; x87 must be on
    mov eax, 5
    FAULTS xGP, 0, xsetbv           ; AVX needs SSE
    mov eax, 1
    mov edx, 0x80000000
    FAULTS xGP, 0, xsetbv
    xor edx, edx
    mov ecx, 1
    FAULTS xGP, 0, xsetbv           ; no XCR1
    xor ecx, ecx
    mov eax, 7
    xsetbv
    xgetbv
    EXPECT eax, 7
    USER
    xor ecx, ecx
    xor edx, edx
    mov eax, 7
    USER_FAULTS xGP, 0, xsetbv
    PASS

TEST64 xgetbv_needs_osxsave
    xor ecx, ecx
    FAULTS xUD, NO_ERROR, xgetbv
    PASS

TEST64 avx_needs_osxsave_and_xcr0
    FAULTS xUD, NO_ERROR, vaddps ymm0, ymm1, ymm2
    mov rax, cr4
    or eax, 1 << 18
    mov cr4, rax
    FAULTS xUD, NO_ERROR, vaddps ymm0, ymm1, ymm2
    xor ecx, ecx
    xor edx, edx
    mov eax, 7
    xsetbv
    vaddps ymm0, ymm1, ymm2
    PASS

TEST64 unknown_msr_is_gp
    mov ecx, 0x12345678
    FAULTS xGP, 0, rdmsr
    FAULTS xGP, 0, wrmsr
    PASS

TEST64 efer_reserved_bits_are_gp
    READ_MSR 0xc0000080
    mov edx, 1
    FAULTS xGP, 0, wrmsr
    xor edx, edx
    or eax, 2
    FAULTS xGP, 0, wrmsr
    PASS

TEST64 noncanonical_msr_values_are_gp
%macro NONCANONICAL_IS_GP 1
    mov ecx, %1
    mov edx, 0x8000
    xor eax, eax
    FAULTS xGP, 0, wrmsr
%endmacro
    NONCANONICAL_IS_GP 0xc0000082   ; LSTAR
    NONCANONICAL_IS_GP 0xc0000083   ; CSTAR
    NONCANONICAL_IS_GP 0xc0000102   ; KERNEL_GS_BASE
    PASS

TEST64 pat_accepts_memory_types_only
    READ_MSR 0x277
    EXPECT eax, 0x00070406
    EXPECT edx, 0x00070406
    mov eax, 0x00070402             ; type 2 does not exist
    FAULTS xGP, 0, wrmsr
    mov eax, 0x01070406
    wrmsr
    rdmsr
    EXPECT eax, 0x01070406
    PASS

TEST64 mtrr_default_type_rules
    WRITE_MSR 0x2ff, 0, 0xc06
    rdmsr
    EXPECT eax, 0xc06
    mov eax, 2
    FAULTS xGP, 0, wrmsr
    mov eax, 0x1000
    FAULTS xGP, 0, wrmsr
    PASS

TEST64 star_and_fmask_keep_their_values
    WRITE_MSR 0xc0000081, 0x12345678, 0x9abcdef0
    rdmsr
    EXPECT edx, 0x12345678
    EXPECT eax, 0x9abcdef0
    WRITE_MSR 0xc0000084, 0, 0x47700
    rdmsr
    EXPECT eax, 0x47700
    PASS

TEST64 rdmsr_clears_upper_halves
    mov rax, -1
    mov rdx, -1
    mov ecx, 0xc0000084
    rdmsr
    EXPECTQ rdx, 0
    shr rax, 32
    EXPECTQ rax, 0
    PASS

TEST64 tsc_write_and_adjust
    WRITE_MSR 0x10, 0x1234, 0
    rdtsc
    EXPECT edx, 0x1234
    READ_MSR 0x3b                   ; TSC_ADJUST moved along
    EXPECT_BITS edx, 0xffff0000, 0
    xor eax, eax
    xor edx, edx
    wrmsr
    rdtsc
    EXPECT edx, 0
    PASS

TEST64 rdtscp_and_rdpid_give_tsc_aux
    WRITE_MSR 0xc0000103, 0, 0x4711
    rdtscp
    EXPECTQ rcx, 0x4711
    rdpid rbx
    EXPECTQ rbx, 0x4711
    mov ecx, 0xc0000103
    mov edx, 1
    xor eax, eax
    PASS

TEST64 tsd_keeps_rdtsc_from_ring_3
    mov rax, cr4
    or eax, 4
    mov cr4, rax
    rdtsc
    USER
    USER_FAULTS xGP, 0, rdtsc
    USER
    USER_FAULTS xGP, 0, rdtscp
    mov rax, cr4
    and eax, ~4
    mov cr4, rax
    USER
    rdtsc
    KERNEL
    PASS

TEST64 rdpmc_without_pce_is_gp_in_ring_3
    USER
    xor ecx, ecx
    USER_FAULTS xGP, 0, rdpmc
    PASS

TEST64 rdrand_gives_different_numbers
    mov esi, 10
.again:
    rdrand rax
    jnc .again
    rdrand rbx
    jnc .again
    cmp rax, rbx
    jne .good
    dec esi
    jnz .again
    FAIL
.good:
    PASS

TEST64 cpuid_works_in_ring_3
    USER
    CPUID_OF 0
    EXPECT ebx, 'Auth'
    KERNEL
    PASS

TEST64 hypervisor_bit_and_leaf
    CPUID_OF 1
    EXPECT_BITS ecx, 1 << 31, 1 << 31
    CPUID_OF 0x40000000
    cmp eax, 0x40000000
    EXPECT_IF ae
    PASS

TEST64 apic_id_of_the_only_cpu
    CPUID_OF 1
    shr ebx, 24
    EXPECT ebx, 0
    CPUID_OF 0xb
    EXPECT edx, 0
    PASS

TEST64 vmx_and_svm_are_absent
    CPUID_OF 1
    EXPECT_BITS ecx, 1 << 5, 0
    CPUID_OF 0x80000001
    EXPECT_BITS ecx, 1 << 2, 0
    READ_MSR 0xc0000080
    or eax, 1 << 12                 ; SVME
    FAULTS xGP, 0, wrmsr
    FAULTS xUD, NO_ERROR, vmrun
    PASS
