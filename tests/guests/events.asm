; External interrupts, NMI, HLT, interrupt shadows. [SDM 3A 6], [APM 2 8]
%include "guest.inc"
%define RESUME(v) dword [v_resume + (v) / 32 * 4], 1 << ((v) & 31)
%macro RAISE 1                      ; external interrupt, from anywhere; AL is lost
    mov al, %1
    out 0xf0, al
%endmacro

TEST64 interrupt_waits_for_if
    mov RESUME(0x21)
    RAISE 0x21
    times 20 nop
    EXPECT [v_count], 0
    sti
    nop
    nop
    EXPECT [v_count], 1
    EXPECT [v_vec], 0x21
    PASS

TEST64 sti_shadow_is_one_instruction
    mov RESUME(0x21)
    RAISE 0x21
    sti
    nop
.after:
    nop
    EXPECT [v_count], 1
    EXPECT [v_ip], .after
    PASS

TEST64 sti_cli_lets_nothing_in
    mov RESUME(0x21)
    RAISE 0x21
    mov ecx, 10
.again:
    sti
    cli
    loop .again
    EXPECT [v_count], 0
    PASS

TEST64 sti_with_if_set_has_no_shadow
    mov RESUME(0x21)
    sti
    nop
    sti
    RAISE 0x21
    nop
    nop
    EXPECT [v_count], 1
    PASS

TEST64 mov_ss_shadow
    mov RESUME(0x21)
    mov ebx, KDATA
    RAISE 0x21
    sti
    mov ss, bx
    mov rcx, rsp
.after:
    nop
    EXPECT [v_count], 1
    EXPECT [v_ip], .after
    PASS

TEST64 popf_enables_at_once
    mov RESUME(0x21)
    RAISE 0x21
    pushfq
    or dword [rsp], 0x200
    popfq
.after:
    nop
    EXPECT [v_ip], .after
    EXPECT [v_count], 1
    PASS

TEST64 iret_enables_at_once
    mov RESUME(0x21)
    RAISE 0x21
    push KDATA
    push STACK0
    push 0x202
    push KCODE64
    push .after
    iretq
.after:
    nop
    EXPECT [v_ip], .after
    EXPECT [v_count], 1
    PASS

TEST64 hlt_wakes_by_interrupt
    mov RESUME(0x21)
    mov al, 0x21
    out 0xf2, al
    sti
    hlt
.after:
    EXPECT [v_count], 1
    EXPECT [v_ip], .after
    PASS

TEST64 sti_hlt_with_pending_interrupt
    mov RESUME(0x21)
    RAISE 0x21
    sti
    hlt                             ; in the shadow; wakes at once
.after:
    EXPECT [v_count], 1
    EXPECT [v_ip], .after
    PASS

TEST64 hlt_wakes_by_nmi_without_if
    mov RESUME(xNMI)
    out 0xf3, al
    hlt
.after:
    EXPECT [v_vec], xNMI
    EXPECT [v_ip], .after
    EXPECT [v_count], 1
    PASS

TEST64 nmi_is_blocked_until_iret
    SETVECTOR xNMI, KCODE64, .handler, 0x8e
    xor ebx, ebx
    out 0xf1, al
    nop
    nop
    EXPECT ebx, 2
    PASS
.handler:
    inc ebx
    cmp ebx, 2
    je .done
    out 0xf1, al
    times 8 nop
    EXPECT ebx, 1                   ; not inside of the first
.done:
    iretq

TEST64 nmi_gate_is_interrupt_gate
    SETVECTOR xNMI, KCODE64, .handler, 0x8e
    sti
    out 0xf1, al
    nop
    nop
    FAIL
.handler:
    pushfq
    pop rax
    EXPECT_BITS eax, 0x200, 0
    PASS

TEST64 exception_return_inside_nmi_unblocks
    SETVECTOR xNMI, KCODE64, .handler, 0x8e
    SETVECTOR xBP, KCODE64, .breakpoint, 0x8e
    xor ebx, ebx
    out 0xf1, al
    nop
    nop
    EXPECT ebx, 2
    PASS
.breakpoint:
    iretq
.handler:
    inc ebx
    cmp ebx, 2
    je .inner
    out 0xf1, al
    times 4 nop
    int3                            ; its IRET lets the next NMI in
    nop
    EXPECT ebx, 2
    iretq
.inner:
    iretq

TEST64 higher_vector_first
    mov dword [v_resume + 4], 0xffffffff
    RAISE 0x22
    RAISE 0x3f
    RAISE 0x2f
    sti
    nop
    nop
    EXPECT [v_log], 0x3f
    EXPECT [v_log + 8], 0x2f
    EXPECT [v_log + 16], 0x22
    PASS

TEST64 cr8_holds_back_lower_classes
    mov dword [v_resume + 4], 0xffffffff
    mov eax, 2
    mov cr8, rax
    RAISE 0x2f
    RAISE 0x31
    sti
    nop
    nop
    EXPECT [v_count], 1
    EXPECT [v_vec], 0x31
    xor eax, eax
    mov cr8, rax
    nop
    nop
    EXPECT [v_count], 2
    EXPECT [v_vec], 0x2f
    PASS

TEST64 nmi_goes_before_external_interrupt
    SETVECTOR xNMI, KCODE64, .nmi, 0x8e
    mov RESUME(0x22)
    out 0xf3, al
    mov al, 0x22
    out 0xf2, al
    sti
    hlt                             ; both come here
    nop
    FAIL
.nmi:
    EXPECT [v_count], 0
    PASS

TEST64 interrupt_has_no_error_code
    CATCH .caught
    RAISE 0x21
    sti
    nop
    nop
    FAIL
.caught:
    EXPECT [v_vec], 0x21
    EXPECT [v_err], NO_ERROR
    EXPECT_BITS [v_flags], 0x200, 0x200
    pushfq
    pop rax
    EXPECT_BITS eax, 0x200, 0
    PASS

TEST64 external_interrupt_ignores_gate_dpl
    mov RESUME(0x21)
    RAISE 0x21
    USER
    nop
    nop
    KERNEL
    EXPECT [v_log], 0x21
    EXPECT [v_log + 8], 0x30
    PASS

TEST64 interrupt_through_missing_gate_has_ext
    and byte [idt64 + 0x21 * 16 + 5], 0x7f
    CATCH .caught
    RAISE 0x21
    sti
    nop
    nop
    FAIL
.caught:
    EXPECT [v_vec], xNP
    EXPECT [v_err], 0x21 * 8 + 3
    PASS

TEST64 interrupt_breaks_a_loop
    mov RESUME(0x21)
    mov al, 0x21
    sti
    mov ecx, 100000000
    out 0xf0, al
.spin:
    cmp dword [v_count], 0
    jne .done
    loop .spin
    FAIL
.done:
    PASS

TEST64 interrupt_between_rep_iterations_resumes
    ; whether it comes before, in or after the REP, the copy is whole
    mov RESUME(0x21)
    mov al, 0x21
    mov esi, HIGH_FREE
    mov edi, FREE
    mov ecx, 0x8000
    sti
    out 0xf0, al
    rep movsb
    EXPECT ecx, 0
    EXPECT edi, FREE + 0x8000
    EXPECT [v_count], 1
    PASS

TEST32 interrupt_in_protected_mode_through_task_gate
    mov dword [tss2 + 32], .task
    mov dword [tss2 + 36], 2
    mov dword [tss2 + 56], STACK1
    mov dword [tss2 + 72], KDATA
    mov dword [tss2 + 76], KCODE32
    mov dword [tss2 + 80], KDATA
    mov dword [tss2 + 84], KDATA
    SETVECTOR 0x21, TSS2, 0, 0x85
    mov al, 0x21
    out 0xf0, al
    sti
    nop
    nop
    EXPECTB bl, 0                   ; registers are the task's own
    EXPECT [v_user], 1
    PASS
.task:
    inc dword [v_user]
    mov bl, 5
    iretd

TEST16 interrupt_in_real_mode
    mov RESUME(0x21)
    mov al, 0x21
    out 0xf2, al
    sti
    hlt
.after:
    EXPECT [v_vec], 0x21
    EXPECT [v_ip], .after
    PASS

TEST32 pvi_in_ring_3
    mov eax, cr4
    or eax, 2
    mov cr4, eax
    USER 0x202
    sti                             ; sets VIF instead of #GP
    pushfd
    pop ecx
    cli
    pushfd
    pop edx
    KERNEL
    EXPECT_BITS ecx, 0x80200, 0x80200
    EXPECT_BITS edx, 0x80200, 0x200
    PASS

TEST64 mwait_returns_or_waits_for_interrupt
    mov RESUME(0x21)
    mov eax, FREE
    xor ecx, ecx
    xor edx, edx
    monitor
    RAISE 0x21
    sti
    xor eax, eax
    mwait
    nop
    EXPECT [v_count], 1
    PASS
