; 16-bit and 32-bit code, stacks and gates in each other's company; what moves between modes. [SDM 3A 22], [SDM 1 6]
%include "guest.inc"

TEST16 push_sp_pushes_the_old_value
    mov bx, sp
    push sp
    pop ax
    EXPECTW ax, bx
    PASS

TEST16 pusha_and_popa
    mov ax, 1
    mov cx, 2
    mov dx, 3
    mov bx, 4
    mov bp, 5
    mov si, 6
    mov di, 7
    pusha
    mov bp, sp
    EXPECTW [bp], 7
    EXPECTW [bp + 6], STACK0        ; SP before
    EXPECTW [bp + 14], 1
    mov word [bp + 6], 0x1111       ; POPA does not take it
    mov word [bp + 12], 0x2222
    popa
    EXPECTW cx, 0x2222
    EXPECTW sp, STACK0
    PASS

TEST16 popf_in_real_mode_sets_iopl_and_nt
    push word 0x7002
    popf
    pushf
    pop ax
    and ax, 0x7000
    EXPECTW ax, 0x7000
    push word 2
    popf
    pushf
    pop ax
    and ax, 0x7000
    EXPECTW ax, 0
    PASS

TEST16 lgdt_with_16_bit_operand_loads_24_bits
    mov word [v_user], 0x1234
    mov dword [v_user + 2], 0xff123456
    o16 lgdt [v_user]
    sgdt [v_user + 8]
    EXPECTW [v_user + 8], 0x1234
    EXPECT_BITS [v_user + 10], 0xffffff, 0x123456
    o32 lgdt [v_user]
    o32 sgdt [v_user + 8]
    EXPECT [v_user + 10], 0xff123456
    PASS

TEST16 protected_mode_before_the_far_jump_keeps_cs
    lgdt [gdt_pointer]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    mov ax, KDATA                   ; still 16-bit code, CS 0
    mov es, ax
    mov ebx, HIGH_FREE
    mov byte [es:ebx], 0x12
    mov eax, cr0
    and al, 0xfe
    mov cr0, eax
    EXPECTB [es:ebx], 0x12
    PASS

TEST16 back_to_real_mode_by_way_of_16_bit_protected_mode
    lgdt [gdt_pointer]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp KCODE16:.protected
.protected:
    mov ax, KDATA16
    mov ds, ax
    mov ss, ax
    mov es, ax
    mov eax, cr0
    and al, 0xfe
    mov cr0, eax
    jmp 0:.real
.real:
    xor ax, ax
    mov ds, ax
    mov ss, ax
    FAULTS xGP, NO_ERROR, mov eax, [0xfffe] ; the limit is 64 KiB
    PASS

TEST16 ret_with_immediate
    push word 0x1111
    push word 0x2222
    call .sub
    EXPECTW sp, STACK0
    PASS
.sub:
    ret 4

TEST16 o32_call_and_ret_in_16_bit_code
    mov dword [0x6ffc], 0xffffffff
    call dword .sub
.back:
    EXPECTW sp, STACK0
    EXPECT [0x6ffc], .back
    PASS
.sub:
    o32 ret

TEST16 indirect_far_jump_16_and_32
    mov word [v_user], .there
    mov word [v_user + 2], 0
    jmp far [v_user]
    FAIL
.there:
    mov dword [v_user], .there2
    mov word [v_user + 4], 0
    o32 jmp far [v_user]
    FAIL
.there2:
    PASS

TEST16 far_jump_32_beyond_64k_is_gp
    CATCH .caught
    jmp dword 0:0x10000
.caught:
    EXPECT [v_vec], xGP
    PASS

TEST16 enter_with_nesting
    mov bp, 0x6f00
    mov word [0x6efe], 0xaaaa
    mov word [0x6efc], 0xbbbb
    enter 8, 3
    EXPECTW bp, STACK0 - 2
    EXPECTW sp, STACK0 - 2 - 6 - 8
    EXPECTW [STACK0 - 2], 0x6f00
    EXPECTW [STACK0 - 4], 0xaaaa
    EXPECTW [STACK0 - 6], 0xbbbb
    EXPECTW [STACK0 - 8], STACK0 - 2
    leave
    EXPECTW sp, STACK0
    EXPECTW bp, 0x6f00
    PASS

TEST32 interrupt_on_16_bit_stack_uses_sp
    SETVECTOR 0x31, KCODE32, .handler, 0x8e
    mov ax, KDATA16
    mov ss, ax
    mov esp, 0xabcd0000 + 0x7000
    int 0x31
.back:
    EXPECT esp, 0xabcd7000
    PASS
.handler:
    EXPECT esp, 0xabcd6ff4
    EXPECT [0x6ff4], .back
    EXPECT [0x6ff8], KCODE32
    iretd

TEST32 far_call_with_16_bit_operand_saves_16_bits
    jmp dword KCODE16:.in16
    CODE 16
.in16:
    mov dword [STACK0 - 4], 0xffffffff
    call KCODE16:.sub
.back:
    EXPECTW sp, STACK0
    jmp dword KCODE32:.in32
.sub:
    EXPECTW [STACK0 - 4], .back
    EXPECTW [STACK0 - 2], KCODE16
    retf
    CODE 32
.in32:
    PASS

TEST32 far_call_from_32_to_16_bit_code_and_back
    call dword KCODE16:.sub
    EXPECT esp, STACK0
    PASS
    CODE 16
.sub:
    o32 retf
    CODE 32

TEST32 user_16_bit_code_and_stack
    mov [v_ksp], esp
    mov [v_catch_sp], esp
    push dword UDATA16
    push dword STACK3
    push dword 0x202
    push dword UCODE16
    push dword .user
    iretd
    CODE 16
.user:
    mov ax, UDATA16
    mov ds, ax
    push word 0x1234
    EXPECTW [STACK3 - 2], 0x1234
    mov dword [v_catch], .caught
    mov eax, [0xffff]
    FAIL
    CODE 32
.caught:
    EXPECT [v_vec], xGP
    EXPECT [v_cs], UCODE16
    EXPECTW [v_sp], STACK3 - 2
    EXPECT [v_ss], UDATA16
    PASS

TEST32 gate_16_from_ring_3_pushes_words
    SETVECTOR 0x31, KCODE32, .handler, 0xe6
    USER
    int 0x31
    KERNEL
    PASS
.handler:
    EXPECT esp, STACK0_ENTRY - 10
    EXPECTW [ss:esp + 2], UCODE32
    EXPECTW [ss:esp + 6], STACK3
    EXPECTW [ss:esp + 8], UDATA
    iretw

TEST32 iretd_in_ring_3_cannot_enter_v86
    USER
    push dword 0x20202              ; VM is not for ring 3 to set
    push dword UCODE32
    push dword .next
    iretd
.next:
    mov ax, cs
    EXPECTW ax, UCODE32
    pushfd
    pop ecx
    KERNEL
    EXPECT_BITS ecx, 0x20000, 0
    PASS

TEST32 popfd_cannot_set_vm_or_rf_or_vip
    push dword 0x1b0002 | 0x20000
    popfd
    pushfd
    pop eax
    EXPECT_BITS eax, 0x1b0000, 0
    push dword 0x240002             ; AC and ID can be set
    popfd
    pushfd
    pop eax
    EXPECT_BITS eax, 0x240000, 0x240000
    PASS

TEST32 lss_loads_both
    mov dword [v_user], STACK1
    mov word [v_user + 4], KDATA
    lss esp, [v_user]
    EXPECT esp, STACK1
    PASS

TEST32 push_beyond_stack_limit_changes_nothing
    SETDESC SPARE + 3, 0, 0x6fff, 0xf3, 4 ; ring 3 stack: limit below 0x7000
    mov [v_ksp], esp
    mov [v_catch_sp], esp
    push dword SPARE + 3
    push dword 0x7002
    push dword 0x202
    push dword UCODE32
    push dword .user
    iretd
.user:
    mov ax, UDATA
    mov ds, ax
    USER_FAULTS xSS, 0, push eax    ; bytes 0x6ffe-0x7001
    EXPECT [v_sp], 0x7002
    PASS

TEST32 far_call_without_stack_room_is_ss
    SETDESC SPARE + 3, 0, 0x6fff, 0xf3, 4
    mov [v_ksp], esp
    mov [v_catch_sp], esp
    push dword SPARE + 3
    push dword 0x7004
    push dword 0x202
    push dword UCODE32
    push dword .user
    iretd
.user:
    mov ax, UDATA
    mov ds, ax
    USER_FAULTS xSS, 0, call dword UCODE32:.user
    EXPECT [v_sp], 0x7004
    PASS

TEST32 ret_far_to_same_level_checks_limit
    SETDESC SPARE, 0, 0xfff, 0x9b, 4
    push dword SPARE
    push dword 0x1000
    FAULTS xGP, 0, retf
    PASS

TEST32 mov_to_cs_is_ud
    CATCH .caught
    db 0x8e, 0xc8                   ; MOV CS, AX
    FAIL
.caught:
    EXPECT [v_vec], xUD
    CATCH .caught2
    db 0x8e, 0xf0                   ; there is no segment register 6
    FAIL
.caught2:
    EXPECT [v_vec], xUD
    PASS

TEST32 bound_and_pusha_in_32_bit_code
    mov eax, 0x11
    mov ebx, 0x22
    pushad
    EXPECT [esp + 28], 0x11
    EXPECT [esp + 16], 0x22
    EXPECT [esp + 12], STACK0
    popad
    EXPECT esp, STACK0
    PASS

TEST32 cr0_pe_cleared_with_paging_is_gp
    mov eax, cr0
    or eax, 0x80000000
    and eax, ~1
    FAULTS xGP, 0, mov cr0, eax
    PASS

TEST32 long_mode_without_l_is_compatibility_mode
    ; PAE, LME, PG with a 32-bit CS: compatibility mode at once
    mov edi, PML4
    mov ecx, 0x3000 / 4
    xor eax, eax
    rep stosd
    mov dword [PML4], PDPT | 7
    mov dword [PDPT], 0x87          ; 1 GiB
    mov eax, cr4
    or eax, 0x20
    mov cr4, eax
    mov eax, PML4
    mov cr3, eax
    mov ecx, 0xc0000080
    mov eax, 0x100
    xor edx, edx
    wrmsr
    rdmsr
    EXPECT_BITS eax, 0x500, 0x100
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    mov ecx, 0xc0000080
    rdmsr
    EXPECT_BITS eax, 0x500, 0x500   ; LMA
    mov eax, 0x7fffffff
    inc eax                         ; 40: INC, not REX
    EXPECT eax, 0x80000000
    jmp dword KCODE64:.in64
    CODE 64
.in64:
    mov rax, 0x123456789abcdef0
    EXPECTQ rax, 0x123456789abcdef0
    PASS

TEST32 long_mode_with_286_tss_is_gp
    SETDESC SPARE, 0x5100, 0x2b, 0x81, 0
    mov ax, SPARE
    ltr ax                          ; fine here
    mov dword [PML4], PDPT | 7
    mov dword [PDPT], 0x87
    mov eax, cr4
    or eax, 0x20
    mov cr4, eax
    mov eax, PML4
    mov cr3, eax
    mov ecx, 0xc0000080
    mov eax, 0x100
    xor edx, edx
    wrmsr
    mov eax, cr0
    or eax, 0x80000000
    FAULTS xGP, 0, mov cr0, eax
    PASS

TEST32 cs_l_bit_with_lme_at_paging_is_gp
    SETDESC SPARE, 0, 0xfffff, 0x9b, 0xa ; L: in legacy mode a 16-bit segment
    mov dword [PML4], PDPT | 7
    mov dword [PDPT], 0x87
    mov eax, cr4
    or eax, 0x20
    mov cr4, eax
    mov eax, PML4
    mov cr3, eax
    mov ecx, 0xc0000080
    mov eax, 0x100
    xor edx, edx
    wrmsr
    jmp dword SPARE:.in16
    CODE 16
.in16:
    mov eax, cr0
    or eax, 0x80000000
    CATCH .caught
    mov cr0, eax
    FAIL
    CODE 32
.caught:
    EXPECT [v_vec], xGP
    PASS

TEST64 far_call_through_memory_in_64_bit_mode
    call dword far [.pointer]
.back:
    EXPECTQ rsp, STACK0
    PASS
.sub:
    EXPECT [rsp], .back
    EXPECT [rsp + 4], KCODE64
    retf
.pointer:
    dd .sub
    dw KCODE64

; AMD: the pointer has a 32-bit offset whatever REX.W says; what is pushed has the operand size [APM 3 CALL (Far)].
TEST64 far_call_with_rex_w_takes_a_32_bit_offset
    call qword far [.pointer]
.back:
    EXPECTQ rsp, STACK0
    PASS
.sub:
    EXPECTQ [rsp], .back
    EXPECTQ [rsp + 8], KCODE64
    o64 retf
.pointer:
    dd .sub
    dw KCODE64

TEST64 far_return_to_outer_level
    mov [v_ksp], rsp
    push UDATA
    push STACK3
    push UCODE64
    push .user
    o64 retf
.user:
    mov ax, cs
    EXPECTW ax, UCODE64
    EXPECTQ rsp, STACK3
    KERNEL
    PASS

TEST64 lar_in_long_mode_knows_64_bit_types_only
    SETDESC SPARE, 0, 0x67, 0x81, 0  ; 286 TSS
    mov ecx, SPARE
    lar eax, ecx
    EXPECT_IF nz
    lsl eax, ecx
    EXPECT_IF nz
    mov ecx, TSS
    lar eax, ecx
    EXPECT_IF z
    EXPECT_BITS eax, 0xff00, 0x8b00
    SETGATE SPARE, KCODE64, 0, 0x84, 0 ; 286 call gate
    mov ecx, SPARE
    lar eax, ecx
    EXPECT_IF nz
    PASS

TEST64 enter_and_leave_in_64_bit_mode
    mov rbp, 0x1111222233334444
    enter 32, 0
    EXPECTQ rbp, STACK0 - 8
    EXPECTQ rsp, STACK0 - 40
    leave
    EXPECTQ rsp, STACK0
    EXPECTQ rbp, 0x1111222233334444
    PASS

TEST64 operand_size_prefix_on_push_and_near_call
    push 0x1234
    o16 push 0x1234
    EXPECTQ rsp, STACK0 - 10
    add rsp, 10
    call .sub
    EXPECTQ rsp, STACK0
    PASS
.sub:
    ret

TEST64 int_3_and_int_1_return_addresses
    CATCH .caught
    int 3                           ; CD 03: a software interrupt like any other
.next:
    FAIL
.caught:
    EXPECT [v_vec], xBP
    EXPECT [v_ip], .next
    USER
    USER_FAULTS xGP, 1 * 8 + 2, int 1
    PASS

TEST64 trap_flag_and_syscall_mask
    mov dword [v_resume], 1 << xDB
    mov ecx, 0xc0000081
    mov edx, (UCODE32 << 16) + KCODE64
    xor eax, eax
    wrmsr
    mov ecx, 0xc0000082
    xor edx, edx
    mov eax, .kernel
    wrmsr
    mov ecx, 0xc0000084
    mov eax, 0x100                  ; FMASK clears TF
    wrmsr
    mov [v_ksp], rsp
    USER
    pushfq
    or dword [rsp], 0x100
    popfq
    syscall
.back:
    nop
.next:
    pushfq
    and dword [rsp], ~0x100
    popfq
    KERNEL
    EXPECT [v_log + 4], .next       ; the kernel ran untraced, SYSRET's trap comes after the next
    PASS
.kernel:
    mov rbx, rsp
    nop
    o64 sysret

TEST64 single_step_trap_comes_before_the_interrupt
    mov dword [v_resume], 1 << xDB
    mov dword [v_resume + 4], 2
    mov al, 0x21
    out 0xf0, al
    pushfq
    or dword [rsp], 0x300
    popfq                           ; interrupt first: no trap is pending yet
    nop
    pushfq
    and dword [rsp], ~0x300
    popfq
    EXPECT [v_log], 0x21
    EXPECT [v_log + 8], xDB
    PASS
