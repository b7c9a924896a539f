; Virtual-8086 mode. [SDM 3A 20], [APM 2 12.3 "virtual-8086"]
%include "guest.inc"

; Continues at the label in virtual-8086 mode, with CS 0, SS:SP = 0:STACK3 and all data segments 0.
%macro ENTER_V86 1-2 0x20202        ; label, EFLAGS
    mov [v_ksp], esp
    mov [v_catch_sp], esp
    push dword 0                    ; GS FS DS ES
    push dword 0
    push dword 0
    push dword 0
    push dword 0                    ; SS
    push dword STACK3
    push dword %2
    push dword 0                    ; CS
    push dword %1
    iretd
%endmacro
; Out of virtual-8086 mode (16-bit code): raises exactly that at this instruction.
%macro V86_FAULTS_AT 4+
    mov dword [v_catch], %%caught
%%at:
    %4
    FAIL_AT %1
    CODE 32
%%caught:
    EXPECT_AT %1, [v_vec], %2
    EXPECT_AT %1, [v_err], %3
    EXPECT_AT %1, [v_ip], %%at
    mov ax, KDATA
    mov es, ax
%endmacro
%define V86_FAULTS V86_FAULTS_AT __?LINE?__,

TEST32 iret_enters_and_segments_are_paragraphs
    mov dword [FREE + 0x10], 0x12345678
    ENTER_V86 .v86
    CODE 16
.v86:
    mov ax, FREE >> 4
    mov es, ax
    mov eax, [es:0x10]
    EXPECT eax, 0x12345678
    mov ax, cs
    EXPECTW ax, 0
    EXPECTW sp, STACK3
    PASS

TEST32 fault_saves_and_nulls_segments
    ENTER_V86 .v86
    CODE 16
.v86:
    mov ax, 0x1111
    mov es, ax
    mov ax, 0x3333
    mov fs, ax
    mov ax, 0x4444
    mov gs, ax
    V86_FAULTS xGP, 0, hlt
    mov ax, fs
    EXPECTW ax, 0
    mov ax, gs
    EXPECTW ax, 0
    mov ebx, [v_frame_sp]
    EXPECTW [ebx + 20], 0x1111      ; EIP CS EFLAGS ESP SS ES DS FS GS
    EXPECTW [ebx + 24], 0
    EXPECTW [ebx + 28], 0x3333
    EXPECTW [ebx + 32], 0x4444
    EXPECT ebx, STACK0_ENTRY - 36
    EXPECT_BITS [v_flags], 0x20000, 0x20000
    pushfd
    pop eax
    EXPECT_BITS eax, 0x20000, 0
    PASS

TEST32 limit_is_64k
    ENTER_V86 .v86
    CODE 16
.v86:
    V86_FAULTS xGP, 0, mov ax, [0xffff]
    ENTER_V86 .v86b
    CODE 16
.v86b:
    mov bp, 0xffff
    V86_FAULTS xSS, 0, mov ax, [bp]
    PASS

TEST32 iopl_below_3_traps_flag_instructions
%macro TRAPS 1+
    ENTER_V86 %%v86
    CODE 16
%%v86:
    V86_FAULTS xGP, 0, %1
%endmacro
    TRAPS cli
    TRAPS sti
    TRAPS pushf
    TRAPS popf
    TRAPS iret
    TRAPS int 0x40
    TRAPS o32 pushf
    TRAPS o32 popf
    PASS

TEST32 iopl_3_allows_flag_instructions
    ENTER_V86 .v86, 0x23202
    CODE 16
.v86:
    cli
    pushf
    pop bx
    sti
    pushf
    pop cx
    push word 0x2                   ; IOPL stays
    popf
    pushf
    pop dx
    and bx, 0x3200
    EXPECTW bx, 0x3000
    and cx, 0x3200
    EXPECTW cx, 0x3200
    and dx, 0x3200
    EXPECTW dx, 0x3000
    PASS

TEST32 int_with_iopl_3_goes_to_the_idt
    ENTER_V86 .v86, 0x23202
    CODE 16
.v86:
    mov dword [v_catch], .caught
    int 0x31
.next:
    FAIL
    CODE 32
.caught:
    EXPECT [v_vec], 0x31
    EXPECT [v_ip], .next
    PASS

TEST32 int_checks_gate_dpl
    ENTER_V86 .v86, 0x23202
    CODE 16
.v86:
    V86_FAULTS xGP, 0x20 * 8 + 2, int 0x20
    PASS

TEST32 int3_needs_no_iopl
    ENTER_V86 .v86
    CODE 16
.v86:
    mov dword [v_catch], .caught
    int3
    FAIL
    CODE 32
.caught:
    EXPECT [v_vec], xBP
    PASS

TEST32 vme_redirects_int_to_the_real_vectors
    mov eax, cr4
    or al, 1
    mov cr4, eax
    mov dword [0x40 * 4], .handler  ; CS 0
    ENTER_V86 .v86, 0x23202
    CODE 16
.v86:
    int 0x40
.next:
    EXPECTW sp, STACK3
    PASS
.handler:
    mov bp, sp
    EXPECTW [bp], .next
    EXPECTW [bp + 2], 0
    pushf
    pop ax
    and ax, 0x200
    EXPECTW ax, 0                   ; IF cleared
    mov ax, [bp + 4]
    and ax, 0x3200
    EXPECTW ax, 0x3200
    iret

TEST32 vme_bitmap_bit_sends_int_to_the_idt
    mov eax, cr4
    or al, 1
    mov cr4, eax
    or byte [tss32_redirection + 0x31 / 8], 1 << (0x31 & 7)
    ENTER_V86 .v86, 0x23202
    CODE 16
.v86:
    mov dword [v_catch], .caught
    int 0x31
    FAIL
    CODE 32
.caught:
    EXPECT [v_vec], 0x31
    ENTER_V86 .v86b                 ; IOPL 0: #GP instead
    CODE 16
.v86b:
    V86_FAULTS xGP, 0, int 0x31
    PASS

TEST32 vme_virtual_interrupt_flag
    mov eax, cr4
    or al, 1
    mov cr4, eax
    ENTER_V86 .v86, 0x20202         ; IOPL 0, VIF clear
    CODE 16
.v86:
    pushf                           ; allowed; shows VIF as IF and IOPL 3
    pop bx
    sti
    pushf
    pop cx
    cli
    pushf
    pop dx
    and bx, 0x3200
    EXPECTW bx, 0x3000
    and cx, 0x3200
    EXPECTW cx, 0x3200
    and dx, 0x3200
    EXPECTW dx, 0x3000
    sti
    V86_FAULTS xGP, 0, hlt
    EXPECT_BITS [v_flags], 0x83200, 0x80200 ; VIF, the real IF, IOPL 0
    PASS

TEST32 vme_popf_sets_vif_and_refuses_tf
    mov eax, cr4
    or al, 1
    mov cr4, eax
    ENTER_V86 .v86
    CODE 16
.v86:
    push word 0x202
    popf
    push word 0x302
    V86_FAULTS xGP, 0, popf
    EXPECT_BITS [v_flags], 0x80200, 0x80200
    PASS

TEST32 vme_sti_with_vip_pending_is_gp
    mov eax, cr4
    or al, 1
    mov cr4, eax
    ENTER_V86 .v86, 0x120202        ; VIP
    CODE 16
.v86:
    V86_FAULTS xGP, 0, sti
    PASS

TEST32 vme_redirected_int_with_iopl_0_pushes_vif
    mov eax, cr4
    or al, 1
    mov cr4, eax
    mov dword [0x40 * 4], .handler
    ENTER_V86 .v86, 0xa0202         ; VIF
    CODE 16
.v86:
    int 0x40
    PASS
.handler:
    mov bp, sp
    mov ax, [bp + 4]
    and ax, 0x3200
    EXPECTW ax, 0x3200
    pushf
    pop ax
    and ax, 0x200
    EXPECTW ax, 0
    iret

TEST32 io_bitmap_decides_even_with_iopl_3
    ENTER_V86 .v86, 0x23202
    CODE 16
.v86:
    in al, 0xf4
    mov dx, 0x60
    V86_FAULTS xGP, 0, in al, dx
    PASS

TEST32 privileged_and_protected_instructions
    TRAPS mov eax, cr0
    TRAPS clts
    TRAPS lgdt [gdt_pointer]
    TRAPS hlt
    ENTER_V86 .v86
    CODE 16
.v86:
    V86_FAULTS xUD, NO_ERROR, sldt ax
    ENTER_V86 .v86b
    CODE 16
.v86b:
    V86_FAULTS xUD, NO_ERROR, lar ax, bx
    ENTER_V86 .v86c
    CODE 16
.v86c:
    V86_FAULTS xUD, NO_ERROR, arpl ax, bx
    PASS

TEST32 far_call_loads_paragraph
    ENTER_V86 .v86
    CODE 16
.v86:
    call 0x100:(.sub - 0x1000)
    PASS
.sub:
    mov ax, cs
    EXPECTW ax, 0x100
    retf

TEST32 return_by_iret_from_the_monitor
    SETVECTOR xGP, KCODE32, .monitor, 0x8e
    ENTER_V86 .v86
    CODE 16
.v86:
    mov ax, 0x1234
    mov es, ax
    hlt                             ; the monitor skips it
    mov ax, es
    EXPECTW ax, 0x1234
    EXPECTW sp, STACK3
    PASS
    CODE 32
.monitor:
    inc dword [ss:esp + 4]
    add esp, 4
    iretd

TEST32 interrupt_to_conforming_or_ring_1_handler_is_gp
    SETVECTOR 0x31, CODE1, 0, 0xee
    ENTER_V86 .v86, 0x23202
    CODE 16
.v86:
    mov dword [v_catch], .caught
    int 0x31
    FAIL
    CODE 32
.caught:
    EXPECT [v_vec], xGP
    EXPECT [v_err], CODE1 & ~3
    PASS

TEST32P paging_applies_with_user_rights
    and dword [PT + FREE / 1024], ~4
    ENTER_V86 .v86
    CODE 16
.v86:
    mov ax, FREE >> 4
    mov es, ax
    V86_FAULTS xPF, 5, mov ax, [es:8]
    EXPECT [v_cr2], FREE + 8
    PASS

TEST32 task_switch_enters_v86
    mov dword [tss2 + 28], PD
    mov dword [tss2 + 32], .v86
    mov dword [tss2 + 36], 0x20202
    mov dword [tss2 + 56], STACK3
    mov dword [tss2 + 72], FREE >> 4 ; ES
    mov dword [tss2 + 4], STACK1
    mov dword [tss2 + 8], KDATA
    mov byte [FREE + 3], 0x77
    jmp dword TSS2:0
    CODE 16
.v86:
    mov al, [es:3]
    mov dword [v_catch], .caught
    mov dword [v_catch_sp], STACK2
    hlt
    CODE 32
.caught:
    EXPECT [v_vec], xGP
    EXPECTB al, 0x77
    PASS
