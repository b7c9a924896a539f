; x87, MMX and SSE: what control bits make of them. [SDM 3A 2.5, 9.2, 13], [APM 2 11]
%include "guest.inc"
%macro CR0_SET 1
    mov rax, cr0
    or eax, %1
    mov cr0, rax
%endmacro
%macro CR0_CLEAR 1
    mov rax, cr0
    and eax, ~(%1)
    mov cr0, rax
%endmacro
MP equ 2
EM equ 4
TS_BIT equ 8
NE equ 0x20

TEST64 ts_makes_nm
    CR0_SET TS_BIT
    FAULTS xNM, NO_ERROR, fld1
    FAULTS xNM, NO_ERROR, movaps xmm0, xmm1
    FAULTS xNM, NO_ERROR, paddb mm0, mm1
    FAULTS xNM, NO_ERROR, fxsave [FREE]
    FAULTS xNM, NO_ERROR, ldmxcsr [v_user]
    clts
    fld1
    movaps xmm0, xmm1
    PASS

TEST64 wait_needs_mp_and_ts
    CR0_CLEAR MP
    CR0_SET TS_BIT
    wait
    CR0_SET MP
    FAULTS xNM, NO_ERROR, wait
    clts
    wait
    PASS

TEST64 em_makes_x87_nm_and_sse_ud
    CR0_SET EM
    FAULTS xNM, NO_ERROR, fld1
    FAULTS xUD, NO_ERROR, movaps xmm0, xmm1
    FAULTS xUD, NO_ERROR, paddb mm0, mm1
    FAULTS xUD, NO_ERROR, emms
    CR0_CLEAR EM
    fld1
    PASS

TEST64 sse_needs_osfxsr
    mov rax, cr4
    and eax, ~0x200
    mov cr4, rax
    FAULTS xUD, NO_ERROR, movaps xmm0, xmm1
    FAULTS xUD, NO_ERROR, ldmxcsr [v_user]
    paddb mm0, mm1                  ; MMX does not
    sfence
    prefetcht0 [v_user]
    PASS

TEST64 unmasked_x87_exception_is_mf_at_the_next_instruction
    CR0_SET NE
    fninit
    mov word [v_user], 0x037b       ; zero divide unmasked
    fldcw [v_user]
    fld1
    fldz
    fdivp
    nop
    FAULTS xMF, NO_ERROR, fld1
    FAULTS xMF, NO_ERROR, wait
    fnstsw ax                       ; the N instructions do not wait
    EXPECT_BITS eax, 0x84, 0x84
    fnclex
    fld1
    PASS

TEST64 unmasked_sse_exception_is_xm
    mov dword [v_user], 0x1d80      ; zero divide unmasked
    ldmxcsr [v_user]
    mov eax, 0x3f800000
    movd xmm0, eax
    xorps xmm1, xmm1
    FAULTS xXM, NO_ERROR, divss xmm0, xmm1
    movd ebx, xmm0
    EXPECT ebx, 0x3f800000          ; nothing was written
    stmxcsr [v_user]
    EXPECT_BITS [v_user], 4, 4
    mov rax, cr4
    and eax, ~0x400                 ; without OSXMMEXCPT it is #UD
    mov cr4, rax
    FAULTS xUD, NO_ERROR, divss xmm0, xmm1
    PASS

TEST64 reserved_mxcsr_bits_are_gp
    mov dword [v_user], 0x10000 | 0x1f80
    FAULTS xGP, 0, ldmxcsr [v_user]
    fxsave [FREE]
    mov dword [FREE + 24], 0x10000 | 0x1f80
    FAULTS xGP, 0, fxrstor [FREE]
    PASS

TEST64 aligned_sse_operands
    FAULTS xGP, 0, movaps xmm0, [v_user + 8]
    FAULTS xGP, 0, addps xmm0, [v_user + 8]
    FAULTS xGP, 0, movntps [v_user + 8], xmm0
    FAULTS xGP, 0, fxsave [FREE + 8]
    movups xmm0, [v_user + 8]
    PASS

TEST64 fxsave_and_fxrstor_64
    fninit
    fld1
    fldpi
    mov eax, 0x12345678
    movd xmm7, eax
    movd xmm15, eax
    o64 fxsave [FREE]
    EXPECTW [FREE], 0x037f
    EXPECT_BITS [FREE + 2], 0x3800, 0x3000 ; TOP 6
    EXPECTB [FREE + 4], 0xc0        ; abridged tag: physical 6 and 7 are in use
    EXPECTW [FREE + 32 + 8], 0x4000 ; exponent of pi
    EXPECTW [FREE + 48 + 8], 0x3fff
    EXPECT [FREE + 160 + 7 * 16], 0x12345678
    EXPECT [FREE + 160 + 15 * 16], 0x12345678
    fninit
    xorps xmm7, xmm7
    o64 fxrstor [FREE]
    movd ebx, xmm7
    EXPECT ebx, 0x12345678
    fistp dword [v_user]
    EXPECT [v_user], 3
    PASS

TEST32 fxsave_in_32_bit_mode_has_8_registers
    mov ecx, 512 / 4
    mov edi, FREE
    mov eax, 0x5a5a5a5a
    rep stosd
    fninit
    fxsave [FREE]
    EXPECT [FREE + 160 + 8 * 16], 0x5a5a5a5a
    EXPECT [FREE + 464], 0x5a5a5a5a ; for software
    PASS

TEST64 xsave_writes_what_is_asked
    mov rax, cr4
    or eax, 1 << 18
    mov cr4, rax
    xor ecx, ecx
    xor edx, edx
    mov eax, 7
    xsetbv
    vpcmpeqd ymm3, ymm3, ymm3
    mov eax, 7
    xor edx, edx
    xsave [FREE]
    EXPECT_BITS [FREE + 512], 6, 6
    EXPECT [FREE + 576 + 3 * 16], 0xffffffff
    vpxor xmm3, xmm3, xmm3
    mov eax, 4                      ; only the upper halves
    xrstor [FREE]
    vextractf128 xmm4, ymm3, 1
    movd ebx, xmm4
    EXPECT ebx, 0xffffffff
    movd ebx, xmm3
    EXPECT ebx, 0
    mov eax, 7
    FAULTS xGP, 0, xsave [FREE + 32]
    mov dword [FREE + 512 + 8], 1   ; reserved header bytes / XCOMP_BV
    FAULTS xGP, 0, xrstor [FREE]
    PASS

TEST64 xsave_needs_osxsave
    mov eax, 7
    xor edx, edx
    FAULTS xUD, NO_ERROR, xsave [FREE]
    PASS

TEST64 vector_writes_clear_upper_halves_by_vex_only
    mov rax, cr4
    or eax, 1 << 18
    mov cr4, rax
    xor ecx, ecx
    xor edx, edx
    mov eax, 7
    xsetbv
    vpcmpeqd ymm1, ymm1, ymm1
    movaps xmm1, xmm0               ; legacy: upper half stays
    vextractf128 xmm2, ymm1, 1
    movd eax, xmm2
    EXPECT eax, -1
    vmovaps xmm1, xmm0
    vextractf128 xmm2, ymm1, 1
    movd eax, xmm2
    EXPECT eax, 0
    PASS

TEST64 mmx_shares_x87_registers
    fninit
    mov eax, 0x11223344
    movd mm0, eax
    fnstsw ax
    EXPECT_BITS eax, 0x3800, 0      ; TOP becomes 0
    fxsave [FREE]
    EXPECTB [FREE + 4], 0xff        ; all in use
    EXPECTW [FREE + 32 + 8], 0xffff ; exponent all ones
    emms
    fxsave [FREE]
    EXPECTB [FREE + 4], 0
    PASS

TEST64 fnsave_initialises
    fninit
    fld1
    fnsave [FREE]
    EXPECTW [FREE + 8], 0x3fff      ; tag word: only register 7 is valid
    fnstcw [v_user]
    EXPECTW [v_user], 0x037f
    frstor [FREE]
    fistp dword [v_user]
    EXPECT [v_user], 1
    PASS

TEST16 fnstenv_in_real_mode_has_14_bytes
    fninit
    mov dword [v_user + 14], 0x5a5a5a5a
    fnstenv [v_user]
    EXPECTW [v_user], 0x037f
    EXPECTW [v_user + 4], 0xffff
    EXPECT [v_user + 14], 0x5a5a5a5a
    PASS

TEST64 lazy_switching_by_ts
    ; #NM handler pattern: TS set, exception, CLTS, go on
    fninit
    fld1
    CR0_SET TS_BIT
    CATCH .nm
    fadd st0, st0
    FAIL
.nm:
    EXPECT [v_vec], xNM
    clts
    fadd st0, st0
    fistp dword [v_user]
    EXPECT [v_user], 2
    PASS

TEST64 lock_on_vector_instruction_is_ud
    CATCH .caught
    db 0xf0, 0x0f, 0x11, 0x03       ; LOCK MOVUPS [RBX], XMM0
    FAIL
.caught:
    EXPECT [v_vec], xUD
    PASS
