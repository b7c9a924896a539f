; Far transfers at their edges: parameters, conforming targets, stacks that fault, nested tasks. [SDM 3A 5.8, 7], [APM 2 4, 12]
%include "guest.inc"
%define PTE32(page) (PT + (page) / 1024)

TEST32 call_gate_copies_31_parameters
    SETGATE SPARE + 3, KCODE32, .sub, 0xec, 31
    USER
    mov ecx, 31
.push:
    push ecx
    loop .push
    call dword (SPARE + 3):0
    EXPECT esp, STACK3
    KERNEL
    PASS
.sub:
    EXPECT esp, STACK0_ENTRY - 16 - 31 * 4
    EXPECT [ss:esp + 8], 1
    EXPECT [ss:esp + 8 + 30 * 4], 31
    retf 31 * 4

TEST32 call_gate_to_conforming_code_keeps_the_stack
    SETDESC SPARE + 8, 0, 0xfffff, 0x9f, 0xc
    SETGATE SPARE + 3, SPARE + 8, .sub, 0xec, 3
    USER
    call dword (SPARE + 3):0
    EXPECT esp, STACK3
    KERNEL
    PASS
.sub:
    mov ax, cs
    EXPECTW ax, SPARE + 8 + 3
    EXPECT esp, STACK3 - 8          ; no parameters are copied without a switch
    retf

TEST32 jump_gate_to_conforming_code_from_ring_3
    SETDESC SPARE + 8, 0, 0xfffff, 0x9f, 0xc
    SETGATE SPARE + 3, SPARE + 8, .there, 0xec, 0
    USER
    jmp dword (SPARE + 3):0
.there:
    mov ax, cs
    EXPECTW ax, SPARE + 8 + 3
    KERNEL
    PASS

TEST32P call_gate_with_missing_inner_stack_page
    SETGATE SPARE + 3, KCODE32, .sub, 0xec, 0
    mov dword [PTE32(FREE)], 0
    invlpg [FREE]
    SETGATE SPARE + 8 + 3, CODE1, .sub, 0xec, 0
    mov dword [tss32 + 12], FREE + 0x1000 ; ESP1
    USER
    USER_FAULTS xPF, 2, call dword (SPARE + 8 + 3):0 ; the push has the new level's rights: supervisor
    EXPECT [v_cr2], FREE + 0xffc
    EXPECT [v_sp], STACK3
    PASS
.sub:
    FAIL

TEST32P call_gate_with_missing_parameters
    SETGATE SPARE + 3, KCODE32, .sub, 0xec, 2
    mov dword [PTE32(FREE)], 0
    invlpg [FREE]
    USER
    mov esp, FREE + 0xff8
    mov dword [v_catch], .caught
    call dword (SPARE + 3):0
.sub:
    FAIL
.caught:
    EXPECT [v_vec], xPF
    EXPECT [v_cr2], FREE + 0xff8
    EXPECT [v_sp], FREE + 0xff8
    PASS

TEST32 call_gate_offset_beyond_the_limit_is_gp
    SETDESC SPARE + 8, 0, 0xfff, 0x9b, 4
    SETGATE SPARE, SPARE + 8, 0x2000, 0x8c, 0
    FAULTS xGP, 0, call dword SPARE:0
    PASS

TEST32 call_gate_inner_stack_too_small_is_ss
    SETDESC SPARE + 8, 0, 0x5fff, 0xb3, 4 ; DPL 1
    SETGATE SPARE + 3, CODE1, .sub, 0xec, 0
    mov word [tss32 + 16], SPARE + 8 + 1
    mov dword [tss32 + 12], 0x6004
    USER
    USER_FAULTS xSS, SPARE + 8, call dword (SPARE + 3):0
    PASS
.sub:
    FAIL

TEST32 tss_too_small_for_the_inner_stack_is_ts
    ; a TSS loaded with a limit that ends before SS2:ESP2
    SETDESC SPARE, tss_small, 0x13, 0x89, 0
    SETGATE SPARE + 8 + 3, CODE2, .sub, 0xec, 0
    mov dword [tss_small + 4], STACK0_ENTRY
    mov word [tss_small + 8], KDATA
    mov ax, SPARE
    ltr ax
    USER
    USER_FAULTS xTS, SPARE, call dword (SPARE + 8 + 3):0
    PASS
.sub:
    FAIL
tss_small equ 0x5100

TEST32 retf_to_ring_3_pops_a_16_bit_stack
    mov [v_ksp], esp
    push word UDATA16
    push word STACK3
    push word UCODE16
    push word .user
    o16 retf
    CODE 16
.user:
    EXPECTW sp, STACK3
    mov ax, UDATA16
    mov ds, ax
    int 0x30
    CODE 32
    PASS

TEST32 interrupt_from_ring_3_to_ring_1_and_back
    SETVECTOR 0x31, CODE1, .handler, 0xee
    USER
    int 0x31
    mov ax, cs
    EXPECTW ax, UCODE32
    EXPECT esp, STACK3
    KERNEL
    PASS
.handler:
    mov ax, cs
    EXPECTW ax, CODE1
    mov ax, ss
    EXPECTW ax, DATA1
    EXPECT esp, STACK1 - 20
    iretd

TEST32 nested_privilege_changes
    SETVECTOR 0x31, CODE2, .ring2, 0xee
    SETVECTOR 0x32, CODE1, .ring1, 0xee
    USER
    int 0x31
    EXPECT esp, STACK3
    KERNEL
    PASS
.ring2:
    int 0x32
    mov ax, cs
    EXPECTW ax, CODE2
    iretd
.ring1:
    mov ax, cs
    EXPECTW ax, CODE1
    EXPECT [ss:esp + 4], CODE2
    iretd

TEST32 iret_from_ring_1_to_ring_3_cannot_change_if
    SETVECTOR 0x31, CODE1, .handler, 0xef ; a trap gate: IF stays set
    USER 0x202
    int 0x31
    pushfd
    pop ecx
    KERNEL
    EXPECT_BITS ecx, 0x3200, 0x200  ; IOPL 0: ring 1 may neither clear IF nor raise IOPL
    PASS
.handler:
    and dword [ss:esp + 8], ~0x200
    or dword [ss:esp + 8], 0x3000
    iretd

TEST32 three_tasks_nested
%macro MAKE_TSS 3
    mov dword [%1 + 32], %2
    mov dword [%1 + 36], 2
    mov dword [%1 + 56], %3
    mov dword [%1 + 72], KDATA
    mov dword [%1 + 76], KCODE32
    mov dword [%1 + 80], KDATA
    mov dword [%1 + 84], KDATA
%endmacro
    MAKE_TSS tss2, .second, STACK1
    MAKE_TSS tss3, .third, STACK2
    call dword TSS2:0
    EXPECTB [gdt + TSS2 + 5], 0x89
    EXPECTB [gdt + TSS3 + 5], 0x89
    EXPECT [v_user], 2
    PASS
.second:
    call dword TSS3:0
    EXPECT [v_user], 1
    inc dword [v_user]
    iretd
.third:
    EXPECTW [tss3], TSS2
    EXPECTW [tss2], TSS
    inc dword [v_user]
    iretd

TEST32 task_call_to_a_task_in_the_chain_is_gp
    MAKE_TSS tss2, .second, STACK1
    call dword TSS2:0
    FAIL
.second:
    FAULTS xGP, TSS, call dword TSS:0 ; busy: tasks do not recurse
    PASS

TEST32 task_switch_to_user_level
    MAKE_TSS tss2, .user, STACK3
    mov dword [tss2 + 4], STACK0_ENTRY
    mov dword [tss2 + 8], KDATA
    mov dword [tss2 + 72], UDATA
    mov dword [tss2 + 76], UCODE32
    mov dword [tss2 + 80], UDATA
    mov dword [tss2 + 84], UDATA
    mov [v_ksp], esp
    jmp dword TSS2:0
.user:
    mov ax, cs
    EXPECTW ax, UCODE32
    KERNEL
    PASS

TEST32 task_with_mismatched_stack_level_is_ts
    MAKE_TSS tss2, .user, STACK3
    mov dword [tss2 + 4], STACK0_ENTRY
    mov dword [tss2 + 8], KDATA
    mov dword [tss2 + 76], UCODE32  ; ring 3 code with a ring 0 stack
    MAKE_TSS tss3, .handler, STACK2
    SETVECTOR xTS, TSS3, 0, 0x85
    jmp dword TSS2:0
.user:
    FAIL
.handler:
    EXPECT [esp], KDATA
    PASS

TEST32 task_with_data_segment_as_code_is_ts
    MAKE_TSS tss2, .user, STACK1
    mov dword [tss2 + 76], KDATA
    MAKE_TSS tss3, .handler, STACK2
    SETVECTOR xTS, TSS3, 0, 0x85
    jmp dword TSS2:0
.user:
    FAIL
.handler:
    EXPECT [esp], KDATA
    PASS

TEST32 task_entry_beyond_code_limit_is_gp_in_the_new_task
    SETDESC SPARE, 0, 0xfff, 0x9b, 4
    MAKE_TSS tss2, 0x2000, STACK1
    mov dword [tss2 + 76], SPARE
    mov dword [v_catch], .caught
    mov dword [v_catch_sp], STACK2
    jmp dword TSS2:0
    FAIL
.caught:
    EXPECT [v_vec], xGP
    EXPECT [v_err], 0
    EXPECT [v_cs], SPARE
    str ax
    EXPECTW ax, TSS2
    PASS

TEST32 trap_flag_of_a_new_task_traps_after_one_instruction
    MAKE_TSS tss2, .task, STACK1
    mov dword [tss2 + 36], 0x102
    mov dword [v_catch], .caught
    mov dword [v_catch_sp], STACK2
    jmp dword TSS2:0
.task:
    nop
.second:
    FAIL
.caught:
    EXPECT [v_vec], xDB
    EXPECT [v_ip], .second
    PASS

TEST32P tss_fields_are_checked_before_the_old_task_is_left
    MAKE_TSS tss2, .task, STACK1
    mov esi, tss2
    mov edi, FREE + 0x1000 - 0x40
    mov ecx, 0x68 / 4
    rep movsd
    SETDESC SPARE, FREE + 0x1000 - 0x40, 0x67, 0x89, 0
    mov dword [PTE32(FREE + 0x1000)], 0
    invlpg [FREE + 0x1000]
    FAULTS xPF, 0, jmp dword SPARE:0 ; the new TSS cannot be read: still the old task
    EXPECT [v_cr2], FREE + 0x1000
    str ax
    EXPECTW ax, TSS
    EXPECTB [gdt + TSS + 5], 0x8b
    EXPECTB [gdt + SPARE + 5], 0x89
    PASS
.task:
    FAIL

TEST64 call_gate_64_to_ring_1_and_back
    mov dword [gdt + SPARE + 8], 0
    mov dword [gdt + SPARE + 12], 0
    SETDESC SPARE + 16, 0, 0xfffff, 0xbb, 0xa ; 64-bit code of ring 1
    SETGATE SPARE + 3, SPARE + 16, .sub, 0xec, 5 ; a count, which long mode ignores
    USER
    call far [.gate]
    mov ax, cs
    EXPECTW ax, UCODE64
    KERNEL
    PASS
.sub:
    mov ax, cs
    EXPECTW ax, SPARE + 16 + 1
    mov ax, ss
    EXPECTW ax, 1                   ; null with RPL 1
    EXPECTQ rsp, STACK1 - 32
    o64 retf
.gate:
    dd 0
    dw SPARE + 3

TEST64 retf_with_immediate_in_64_bit_mode
    push 0x1111
    push KCODE64
    push .next
    o64 retf 8
.next:
    EXPECTQ rsp, STACK0
    PASS

TEST64 int_from_compatibility_mode_with_16_bit_stack
    mov [v_ksp], rsp
    push UDATA16
    push STACK3
    push 0x202
    push UCODE32
    push .user
    iretq
    CODE 32
.user:
    mov ax, UDATA
    mov ds, ax
    push dword 0x1234
    EXPECTW [STACK3 - 4], 0x1234
    int 0x30
    CODE 64
    EXPECTQ [v_ss], UDATA16
    mov ax, [v_sp]
    EXPECTW ax, STACK3 - 4
    PASS

TEST64 iretq_to_16_bit_code
    mov [v_ksp], rsp
    push UDATA16
    push STACK3
    push 0x202
    push UCODE16
    push .user
    iretq
    CODE 16
.user:
    mov ax, 0xffff
    inc ax
    EXPECTW ax, 0
    int 0x30
    CODE 64
    PASS

TEST64 ring_3_handler_target_is_gp
    SETVECTOR 0x31, UCODE64, 0, 0xee
    FAULTS xGP, UCODE64 & ~3, int 0x31
    PASS
