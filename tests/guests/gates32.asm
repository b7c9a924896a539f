; Protected mode: call gates, interrupt and trap gates, double faults, IRET. [SDM 3A 5.8, 6]
%include "guest.inc"

TEST32 call_gate_same_privilege
    SETGATE SPARE, KCODE32, .sub, 0x8c, 0
    call dword SPARE:0xdeadbeef     ; the offset is ignored
.back:
    EXPECT esp, STACK0
    PASS
.sub:
    EXPECT [esp], .back
    EXPECTW [esp + 4], KCODE32
    retf

TEST32 jump_through_call_gate
    SETGATE SPARE, KCODE32, .there, 0x8c, 0
    jmp dword SPARE:0
    FAIL
.there:
    EXPECT esp, STACK0
    PASS

TEST32 call_gate_to_inner_privilege_copies_parameters
    SETGATE SPARE + 3, KCODE32, .sub, 0xec, 2
    USER
    push dword 0x11111111
    push dword 0x22222222
    call dword (SPARE + 3):0
.back:
    EXPECT esp, STACK3
    mov ax, cs
    EXPECTW ax, UCODE32
    KERNEL
    PASS
.sub:
    EXPECT esp, STACK0_ENTRY - 24
    EXPECT [ss:esp], .back
    EXPECTW [ss:esp + 4], UCODE32
    EXPECT [ss:esp + 8], 0x22222222
    EXPECT [ss:esp + 12], 0x11111111
    EXPECT [ss:esp + 16], STACK3 - 8
    EXPECTW [ss:esp + 20], UDATA
    mov ax, cs
    EXPECTW ax, KCODE32
    mov ax, ss
    EXPECTW ax, KDATA
    retf 8

TEST32 call_gate_16_to_inner_privilege
    SETGATE SPARE + 3, KCODE32, .sub, 0xe4, 1
    USER
    push word 0x3333
    call dword (SPARE + 3):0
    EXPECT esp, STACK3
    KERNEL
    PASS
.sub:
    EXPECT esp, STACK0_ENTRY - 10
    EXPECTW [ss:esp + 4], 0x3333
    EXPECTW [ss:esp + 6], STACK3 - 2
    o16 retf 2

TEST32 call_gate_to_ring_1
    SETGATE SPARE + 3, CODE1, .sub, 0xec, 0
    USER
    call dword (SPARE + 3):0
    mov ax, cs
    EXPECTW ax, UCODE32
    KERNEL
    PASS
.sub:
    mov ax, cs
    EXPECTW ax, CODE1
    mov ax, ss
    EXPECTW ax, DATA1
    EXPECT esp, STACK1 - 16
    retf

TEST32 call_gate_dpl_is_checked
    SETGATE SPARE, KCODE32, .sub, 0x8c, 0
    USER
    USER_FAULTS xGP, SPARE, call dword SPARE:0
    SETGATE SPARE, KCODE32, .sub, 0xac, 0
    FAULTS xGP, SPARE, call dword (SPARE + 2):0 ; RPL 2 above DPL 1
    PASS
.sub:
    FAIL

TEST32 call_gate_not_present_is_np
    SETGATE SPARE, KCODE32, 0, 0x0c, 0
    FAULTS xNP, SPARE, call dword SPARE:0
    PASS

TEST32 call_gate_with_bad_target_is_gp
    SETGATE SPARE, 0, 0, 0x8c, 0
    FAULTS xGP, 0, call dword SPARE:0
    SETGATE SPARE, KDATA, 0, 0x8c, 0
    FAULTS xGP, KDATA, call dword SPARE:0
    SETGATE SPARE, UCODE32, 0, 0x8c, 0 ; to outer privilege
    FAULTS xGP, UCODE32 & ~3, call dword SPARE:0
    SETDESC SPARE + 8, 0, 0xfffff, 0x1b, 0xc
    SETGATE SPARE, SPARE + 8, 0, 0x8c, 0
    FAULTS xNP, SPARE + 8, call dword SPARE:0
    PASS

TEST32 jump_through_gate_cannot_gain_privilege
    SETGATE SPARE + 3, KCODE32, .sub, 0xec, 0
    USER
    USER_FAULTS xGP, KCODE32, jmp dword (SPARE + 3):0
    PASS
.sub:
    FAIL

TEST32 call_gate_with_bad_inner_stack_is_ts
    SETGATE SPARE + 3, CODE1, .sub, 0xec, 0
    mov word [tss32 + 16], KDATA    ; SS1: DPL is not 1
    USER
    USER_FAULTS xTS, KDATA, call dword (SPARE + 3):0
    mov word [tss32 + 16], 0
    USER
    USER_FAULTS xTS, 0, call dword (SPARE + 3):0
    SETDESC SPARE + 8, 0, 0xfffff, 0x33, 0xc ; not present
    mov word [tss32 + 16], SPARE + 8 + 1
    USER
    USER_FAULTS xSS, SPARE + 8, call dword (SPARE + 3):0
    PASS
.sub:
    FAIL

TEST32 interrupt_gate_clears_if_trap_gate_keeps_it
    sti
    SETVECTOR 0x31, KCODE32, .trap, 0x8f
    SETVECTOR 0x32, KCODE32, .interrupt, 0x8e
    int 0x31
    int 0x32
    pushfd
    pop eax
    EXPECT_BITS eax, 0x200, 0x200
    PASS
.trap:
    pushfd
    pop eax
    EXPECT_BITS eax, 0x200, 0x200
    iretd
.interrupt:
    pushfd
    pop eax
    EXPECT_BITS eax, 0x200, 0
    iretd

TEST32 gate_16_pushes_16_bit_frame
    SETVECTOR 0x31, KCODE32, .handler, 0x86
    int 0x31
.back:
    EXPECT esp, STACK0
    PASS
.handler:
    EXPECT esp, STACK0 - 6
    EXPECTW [esp], .back
    EXPECTW [esp + 2], KCODE32
    iretw

TEST32 int_n_checks_gate_dpl
    USER
    USER_FAULTS xGP, 0x20 * 8 + 2, int 0x20
    USER
    USER_FAULTS xGP, 0x0d * 8 + 2, int 0x0d
    PASS

TEST32 exceptions_do_not_check_gate_dpl
    USER
    USER_FAULTS xUD, NO_ERROR, ud2
    USER
    xor ecx, ecx
    USER_FAULTS xDE, NO_ERROR, div ecx
    PASS

TEST32 int3_checks_gate_dpl
    SETVECTOR 3, KCODE32, stubs32 + 3 * STUB_SIZE, 0x8e
    USER
    USER_FAULTS xGP, 3 * 8 + 2, int3
    PASS

TEST32 int3_and_into_push_next_address
    CATCH .caught
    int3
.next:
    FAIL
.caught:
    EXPECT [v_vec], xBP
    EXPECT [v_ip], .next
    mov al, 0x7f
    CATCH .caught2
    add al, 1
    into
.next2:
    FAIL
.caught2:
    EXPECT [v_vec], xOF
    EXPECT [v_ip], .next2
    PASS

TEST32 int_beyond_idt_limit_is_gp
    FAULTS xGP, 0x40 * 8 + 2, int 0x40
    PASS

TEST32 gate_not_present_is_np
    SETVECTOR 0x31, KCODE32, 0, 0x0e
    FAULTS xNP, 0x31 * 8 + 2, int 0x31
    PASS

TEST32 wrong_gate_type_is_gp
    SETVECTOR 0x31, KCODE32, 0, 0x8c ; a call gate in the IDT
    FAULTS xGP, 0x31 * 8 + 2, int 0x31
    PASS

TEST32 gate_with_null_or_bad_selector
    SETVECTOR 0x31, 0, 0, 0x8e
    FAULTS xGP, 0, int 0x31
    SETVECTOR 0x31, KDATA, 0, 0x8e
    FAULTS xGP, KDATA, int 0x31
    SETVECTOR 0x31, UCODE32, 0, 0x8e
    FAULTS xGP, UCODE32 & ~3, int 0x31
    PASS

; The error code of a fault during the delivery of an exception has EXT set [SDM 3A 6.13].
TEST32 fault_while_delivering_exception_has_ext
    SETVECTOR xUD, KCODE32, stubs32, 0x0e ; #UD is benign: its #NP is delivered, not a double fault
    FAULTS xNP, xUD * 8 + 3, ud2
    PASS

TEST32 contributory_fault_while_delivering_gp_is_double_fault
    SETVECTOR xGP, KCODE32, 0, 0x0e
    mov ax, GDT_LIMIT + 1
    CATCH .caught
    mov es, ax
    FAIL
.caught:
    EXPECT [v_vec], xDF
    EXPECT [v_err], 0
    PASS

TEST32 divide_error_without_gate_is_double_fault
    SETVECTOR xDE, KCODE32, 0, 0x0e
    xor ecx, ecx
    CATCH .caught
    div ecx
    FAIL
.caught:
    EXPECT [v_vec], xDF
    PASS

TEST32 triple_fault_shuts_down
    mov al, 2
    out 0xec, al
    lidt [.nothing]
    ud2
    FAIL
.nothing:
    dw 0
    dd 0

TEST32 privilege_switch_takes_stack_from_tss
    USER
    mov ecx, 0x1234
    USER_FAULTS xUD, NO_ERROR, ud2
    EXPECT [v_sp], STACK3
    EXPECTW [v_ss], UDATA
    EXPECT [v_cs], UCODE32
    EXPECT [v_frame_sp], STACK0_ENTRY - 20
    EXPECT ecx, 0x1234
    PASS

; 6 fields with error code.
TEST32 error_code_is_pushed_last
    USER
    mov ax, KDATA
    USER_FAULTS xGP, KDATA, mov es, ax
    EXPECT [v_frame_sp], STACK0_ENTRY - 20
    PASS

TEST32 trap_flag_and_nt_and_rf_are_cleared_on_entry
    SETVECTOR 0x31, KCODE32, .handler, 0x8e
    pushfd
    or dword [esp], 0x4000          ; NT
    popfd
    int 0x31
    pushfd
    and dword [esp], ~0x4000
    pop eax
    push eax
    popfd
    PASS
.handler:
    mov ecx, [esp + 8]
    EXPECT_BITS ecx, 0x4000, 0x4000
    pushfd
    pop eax
    EXPECT_BITS eax, 0x14300, 0
    iretd

TEST32 handler_in_conforming_segment_keeps_cpl
    SETDESC SPARE, 0, 0xfffff, 0x9f, 0xc
    SETVECTOR 0x31, SPARE, .handler, 0xee
    USER
    int 0x31
    KERNEL
    PASS
.handler:
    mov ax, cs
    EXPECTW ax, SPARE + 3
    EXPECT esp, STACK3 - 12
    iretd

TEST32 iret_to_outer_nulls_inner_segments
    mov ax, KDATA
    mov fs, ax
    mov [v_ksp], esp
    push dword UDATA
    push dword STACK3
    push dword 0x202
    push dword UCODE32
    push dword .user
    iretd
.user:
    mov ax, fs
    EXPECTW ax, 0
    mov ax, ds
    EXPECTW ax, 0
    KERNEL
    PASS

TEST32 iret_checks_ss
    push dword KDATA
    push dword STACK3
    push dword 0x202
    push dword UCODE32
    push dword 0
    FAULTS xGP, KDATA, iretd
    PASS

TEST32 iret_to_bad_cs_is_gp
    push dword 0x202
    push dword 0
    push dword 0
    FAULTS xGP, 0, iretd
    mov dword [esp + 4], KDATA
    FAULTS xGP, KDATA, iretd
    PASS

TEST32 iret_faults_leave_stack_pointer
    pushfd
    push dword KDATA
    push dword 0
    mov ecx, esp
    FAULTS xGP, KDATA, iretd
    EXPECT [v_sp], ecx
    PASS

TEST32 iret_in_ring_3_cannot_change_iopl
    USER 0x202
    push dword 0x3002
    push dword UCODE32
    push dword .next
    iretd
.next:
    pushfd
    pop ecx
    KERNEL
    EXPECT_BITS ecx, 0x3200, 0x200
    PASS

TEST32 bound_and_its_limits
    mov dword [v_user], -5
    mov dword [v_user + 4], 5
    mov eax, -5
    bound eax, [v_user]
    mov eax, 6
    FAULTS xBR, NO_ERROR, bound eax, [v_user]
    PASS

TEST32 io_bitmap_of_tss_governs_ports
    USER
    in al, 0xf4                     ; allowed
    mov dx, 0x60
    USER_FAULTS xGP, 0, in al, dx
    USER
    mov dx, 0xdf
    USER_FAULTS xGP, 0, in ax, dx   ; first byte is not allowed
    USER
    mov dx, 0xff
    USER_FAULTS xGP, 0, in ax, dx   ; second byte is not
    USER
    mov dx, 0x1000                  ; beyond the TSS limit
    USER_FAULTS xGP, 0, in al, dx
    USER 0x3202
    in al, dx                       ; IOPL 3 asks no bitmap
    KERNEL
    PASS

TEST32 sysenter_and_sysexit
    mov ecx, 0x174
    mov eax, KCODE32
    xor edx, edx
    wrmsr
    inc ecx
    mov eax, 0x6600
    wrmsr
    inc ecx
    mov eax, .kernel
    wrmsr
    ; SYSEXIT takes CS + 16 and CS + 24 of SYSENTER_CS
    mov [v_ksp], esp
    mov edx, .user
    mov ecx, STACK3
    sysexit
.user:
    mov ax, cs
    EXPECTW ax, KCODE32 + 16 + 3
    mov ax, ss
    EXPECTW ax, KCODE32 + 24 + 3
    EXPECT esp, STACK3
    sysenter
    FAIL
.kernel:
    mov ax, cs
    EXPECTW ax, KCODE32
    mov ax, ss
    EXPECTW ax, KCODE32 + 8
    EXPECT esp, 0x6600
    pushfd
    pop eax
    EXPECT_BITS eax, 0x20200, 0
    PASS

TEST32 sysenter_without_cs_is_gp
    FAULTS xGP, 0, sysenter
    FAULTS xGP, 0, sysexit
    PASS

TEST32 syscall_in_legacy_mode
    FAULTS xUD, NO_ERROR, syscall   ; EFER.SCE is 0
    mov ecx, 0xc0000080
    mov eax, 1
    xor edx, edx
    wrmsr
    mov ecx, 0xc0000081
    mov eax, .kernel
    mov edx, KCODE32 + ((UCODE32 & ~3) << 16)
    wrmsr
    mov [v_ksp], esp
    USER 0x3202
    syscall
.back:
    mov ax, cs
    EXPECTW ax, UCODE32
    KERNEL
    PASS
.kernel:
    EXPECT ecx, .back
    mov ax, cs
    EXPECTW ax, KCODE32
    mov ax, ss
    EXPECTW ax, KCODE32 + 8
    pushfd
    pop eax
    EXPECT_BITS eax, 0x20200, 0
    sysret
