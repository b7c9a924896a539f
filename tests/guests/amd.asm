; Where AMD's manual decides, because Intel's says otherwise. [APM 2, 3]
%include "guest.inc"

; In 64-bit mode a near branch with an operand-size prefix has a 16-bit displacement and truncates RIP [APM 3 JMP (Near)].
TEST64 near_jump_with_operand_size_prefix_is_16_bits
    xor ebx, ebx
    db 0x66, 0xe9                   ; JMP rel16
    dw .target - ($ + 2)
.mid:
    db 0x90, 0x90                   ; an Intel processor would take these as displacement too
    FAIL
.target:
    PASS

TEST64 near_call_with_operand_size_prefix_pushes_16_bits
    db 0x66, 0xe8                   ; CALL rel16
    dw .sub - ($ + 2)
.back:
    EXPECTQ rsp, STACK0
    PASS
.sub:
    EXPECTQ rsp, STACK0 - 2
    EXPECTW [rsp], .back
    db 0x66, 0xc3                   ; RET with a 16-bit operand

TEST64 sysret_to_noncanonical_address_faults_in_ring_3
    mov ecx, 0xc0000081
    mov edx, (UCODE32 << 16) + KCODE64
    xor eax, eax
    wrmsr
    mov rcx, 0x800000000000
    mov r11d, 0x202
    mov [v_catch_sp], rsp
    mov qword [v_catch], .caught
    o64 sysret                      ; itself it does not fault [APM 3 SYSRET]
    FAIL
.caught:
    EXPECT [v_vec], xGP
    EXPECT [v_err], 0
    EXPECT_BITS [v_cs], 3, 3
    EXPECTQ [v_ip], 0x800000000000
    PASS

TEST64 syscall_works_in_compatibility_mode
    mov ecx, 0xc0000081
    mov edx, (UCODE32 << 16) + KCODE64
    xor eax, eax
    wrmsr
    mov ecx, 0xc0000083
    xor edx, edx
    mov eax, .kernel
    wrmsr
    mov [v_ksp], rsp
    push UDATA
    push STACK3
    push 0x202
    push UCODE32
    push .compat
    iretq
    CODE 32
.compat:
    syscall
.back:
    CODE 64
.kernel:
    mov ax, cs
    EXPECTW ax, KCODE64
    EXPECTQ rcx, .back
    PASS

TEST64 null_selector_load_keeps_fs_base_or_clears_it
    ; AMD leaves the base when a null selector is loaded [APM 2 4.5.3]; Intel clears it
    mov ecx, 0xc0000100
    mov eax, FREE
    xor edx, edx
    wrmsr
    xor eax, eax
    mov fs, ax
    mov ecx, 0xc0000100
    rdmsr
    cmp eax, FREE
    je .kept
    EXPECT eax, 0
.kept:
    PASS

TEST64 lss_with_rex_w_takes_a_32_bit_offset
    mov dword [v_user], STACK1
    mov word [v_user + 4], KDATA
    mov qword [v_user + 8], -1
    o64 lss rsp, [v_user]
    EXPECTQ rsp, STACK1
    PASS

TEST64 mov_cr8_by_lock_mov_cr0
    mov eax, 7
    mov cr8, rax
    CATCH .none
    db 0xf0, 0x0f, 0x20, 0xc3       ; LOCK MOV RBX, CR0: AltMovCr8 [APM 3 MOV CRn]
    EXPECTQ rbx, 7
    PASS
.none:
    EXPECT [v_vec], xUD
    mov eax, 0x80000001             ; then CPUID must not promise it
    cpuid
    EXPECT_BITS ecx, 1 << 4, 0
    PASS

TEST64 misaligned_sse_mode_is_not_promised_or_works
    mov eax, 0x80000001
    cpuid
    mov esi, ecx
    mov dword [v_user], 0x1f80 | 1 << 17 ; MXCSR.MM
    test esi, 1 << 7
    jnz .promised
    FAULTS xGP, 0, ldmxcsr [v_user]
    PASS
.promised:
    ldmxcsr [v_user]
    PASS

TEST64 three_d_now_is_absent_and_prefetchw_present
    mov eax, 0x80000001
    cpuid
    EXPECT_BITS edx, 3 << 30, 0
    EXPECT_BITS ecx, 1 << 8, 1 << 8
    prefetchw [v_user]
    CATCH .caught
    db 0x0f, 0x0f, 0xc1, 0x9e       ; PFADD MM0, MM1
    FAIL
.caught:
    EXPECT [v_vec], xUD
    PASS

TEST64 monitor_and_mwait_in_ring_3_are_ud
    USER
    xor ecx, ecx
    xor edx, edx
    USER_FAULTS xUD, NO_ERROR, monitor
    PASS

TEST64 lahf_and_sahf_in_64_bit_mode
    mov eax, 0x80000001
    cpuid
    EXPECT_BITS ecx, 1, 1
    mov ah, 0xff
    sahf
    lahf
    movzx eax, ah
    EXPECT eax, 0xd7
    PASS

TEST64 invlpgb_and_clzero_follow_cpuid
    mov eax, 0x80000008
    cpuid
    mov esi, ebx
    mov eax, FREE
    test esi, 1
    jnz .clzero
    FAULTS xUD, NO_ERROR, clzero
    PASS
.clzero:
    mov dword [FREE + 60], 5
    clzero
    EXPECT [FREE + 60], 0
    PASS
