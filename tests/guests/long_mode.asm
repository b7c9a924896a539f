; 64-bit mode: canonical addresses, segments, gates, IST, SYSCALL, MSRs, control registers. [APM 2 4, 8], [SDM 3A 5, 6.14]
%include "guest.inc"
%define NONCANONICAL 0x800000000000

%macro WRITE_MSR 3                  ; index, high, low
    mov ecx, %1
    mov edx, %2
    mov eax, %3
    wrmsr
%endmacro

TEST64 noncanonical_data_is_gp
    mov rbx, NONCANONICAL
    FAULTS xGP, 0, mov eax, [rbx]
    FAULTS xGP, 0, mov [rbx], eax
    mov rbx, 0xffff7fffffffffff
    FAULTS xGP, 0, mov al, [rbx]
    mov rbx, 0x7ffffffffffe         ; runs over the edge
    FAULTS xGP, 0, mov eax, [rbx]
    PASS

TEST64 noncanonical_stack_is_ss
    mov rbp, NONCANONICAL
    FAULTS xSS, 0, mov eax, [rbp]
    FAULTS xSS, 0, mov [rbp + 8], rax
    USER
    mov rsp, NONCANONICAL + 8
    USER_FAULTS xSS, 0, push rax
    USER
    mov rsp, NONCANONICAL
    USER_FAULTS xSS, 0, pop rax
    PASS

TEST64 fs_override_on_stack_base_is_gp
    mov rbp, NONCANONICAL
    FAULTS xGP, 0, mov eax, [fs:rbp]
    PASS

TEST64 jump_to_noncanonical_is_gp
    mov rbx, NONCANONICAL
    FAULTS xGP, 0, jmp rbx
    FAULTS xGP, 0, call rbx
    push rbx
    FAULTS xGP, 0, ret
    PASS

TEST64 segment_limits_and_types_are_not_checked
    SETDESC SPARE, 0, 0, 0x91, 0    ; read-only, limit 0
    mov ax, SPARE
    mov ds, ax
    mov dword [v_user], 0x1234
    mov es, ax
    EXPECT [es:v_user], 0x1234
    mov [cs:v_user], eax
    PASS

TEST64 bases_of_es_ds_ss_are_ignored
    SETDESC SPARE, 0x1000, 0xfffff, 0x93, 0xc
    mov ax, SPARE
    mov ds, ax
    mov es, ax
    mov dword [v_user], 0x1234
    mov dword [v_user + 0x1000], 0x9999
    EXPECT [es:v_user], 0x1234
    PASS

TEST64 fs_base_by_descriptor_and_msr
    SETDESC SPARE, 0x1000, 0xfffff, 0x93, 0xc
    mov dword [v_user + 0x1000], 0x1111
    mov dword [FREE + v_user], 0x2222
    mov ax, SPARE
    mov fs, ax
    EXPECT [fs:v_user], 0x1111
    WRITE_MSR 0xc0000100, 0, FREE
    EXPECT [fs:v_user], 0x2222
    mov ax, fs
    EXPECTW ax, SPARE               ; the selector stays
    rdmsr
    EXPECT eax, FREE
    PASS

TEST64 fs_base_msr_must_be_canonical
    mov ecx, 0xc0000100
    mov edx, 0x8000
    xor eax, eax
    FAULTS xGP, 0, wrmsr
    mov ecx, 0xc0000101
    FAULTS xGP, 0, wrmsr
    mov ecx, 0xc0000102
    FAULTS xGP, 0, wrmsr
    PASS

TEST64 fsgsbase_needs_cr4
    FAULTS xUD, NO_ERROR, rdfsbase rax
    mov rax, cr4
    or eax, 1 << 16
    mov cr4, rax
    mov rbx, 0xffff800012345678
    wrfsbase rbx
    rdfsbase rcx
    EXPECTQ rcx, 0xffff800012345678
    rdfsbase ecx
    EXPECTQ rcx, 0x12345678
    mov rbx, NONCANONICAL
    FAULTS xGP, 0, wrgsbase rbx
    mov ebx, FREE
    USER
    wrgsbase rbx                    ; in ring 3 too
    mov dword [gs:0], 0x4444
    KERNEL
    EXPECT [FREE], 0x4444
    PASS

TEST64 swapgs_exchanges_bases
    WRITE_MSR 0xc0000101, 0x11, 0x22
    WRITE_MSR 0xc0000102, 0x33, 0x44
    swapgs
    mov ecx, 0xc0000101
    rdmsr
    EXPECT edx, 0x33
    EXPECT eax, 0x44
    mov ecx, 0xc0000102
    rdmsr
    EXPECT edx, 0x11
    EXPECT eax, 0x22
    USER
    USER_FAULTS xGP, 0, swapgs
    PASS

TEST64 null_ss_is_fine_in_ring_0
    xor eax, eax
    mov ss, ax
    push rax
    pop rax
    CATCH .caught
    ud2
.caught:
    EXPECTQ [v_ss], 0
    USER
    xor eax, eax
    USER_FAULTS xGP, 0, mov ss, ax  ; not in ring 3
    PASS

TEST64 interrupt_frame_is_aligned_and_has_ss_rsp
    mov rsp, STACK0 - 5
    CATCH .caught
    ud2
.caught:
    EXPECTQ [v_sp], STACK0 - 5
    EXPECTQ [v_frame_sp], (STACK0 - 5 & ~15) - 40
    EXPECTQ [v_ss], KDATA
    mov rsp, STACK0
    CATCH .caught2
    mov ax, GDT_LIMIT + 1
    mov es, ax
.caught2:
    EXPECTQ [v_frame_sp], STACK0 - 40 ; the error code is below
    EXPECT [v_err], GDT_LIMIT + 1
    PASS

TEST64 ist_is_used_without_privilege_change
    mov byte [idt64 + xUD * 16 + 4], 1
    CATCH .caught
    ud2
.caught:
    EXPECTQ [v_frame_sp], STACK_IST - 40
    EXPECTQ [v_sp], STACK0
    USER
    USER_FAULTS xUD, NO_ERROR, ud2
    EXPECTQ [v_frame_sp], STACK_IST - 40
    PASS

TEST64 entry_from_ring_3_loads_null_ss
    SETVECTOR 0x31, KCODE64, .handler, 0xee
    USER
    int 0x31
    mov ax, ss
    EXPECTW ax, UDATA
    KERNEL
    PASS
.handler:
    mov ax, ss
    EXPECTW ax, 0
    EXPECTQ rsp, STACK0_ENTRY - 40
    mov ax, ds
    EXPECTW ax, 0                   ; IRETQ to ring 3 took what ring 3 may not have
    EXPECTQ [rsp + 32], UDATA
    EXPECTQ [rsp + 24], STACK3
    iretq

TEST64 iretq_always_pops_stack
    push KDATA
    push STACK1
    pushfq
    push KCODE64
    push .there
    iretq
.there:
    EXPECTQ rsp, STACK1
    PASS

TEST64 iretq_to_noncanonical_is_gp
    mov rbx, NONCANONICAL
    push KDATA
    push STACK1
    pushfq
    push KCODE64
    push rbx
    FAULTS xGP, 0, iretq
    PASS

TEST64 iretq_checks_ss
    push KDATA
    push STACK3
    push 0x202
    push UCODE64
    push 0
    FAULTS xGP, KDATA, iretq
    mov qword [rsp + 32], 0         ; null SS is not for ring 3
    FAULTS xGP, 0, iretq
    PASS

TEST64 iret_with_nt_is_gp
    push KDATA
    push STACK1
    pushfq
    push KCODE64
    push 0
    pushfq
    or dword [rsp], 0x4000
    popfq
    FAULTS xGP, 0, iretq
    PASS

TEST64 iretq_to_compatibility_mode_and_back
    mov [v_ksp], rsp
    push UDATA
    push STACK3
    push 0x202
    push UCODE32
    push .compat
    iretq
    CODE 32
.compat:
    mov eax, 0xffffffff
    inc eax                         ; would be a REX prefix
    EXPECT eax, 0
    mov ax, cs
    EXPECTW ax, UCODE32
    int 0x30
    CODE 64
    PASS

TEST64 far_jump_to_compatibility_in_ring_0
    jmp far [.to32]
    CODE 32
.there:
    mov ax, KDATA
    mov ss, ax
    push dword 0x1234
    pop ecx
    EXPECT esp, STACK0
    mov eax, cr0
    EXPECT_BITS eax, 0x80000001, 0x80000001
    jmp dword KCODE64:.back
    CODE 64
.back:
    EXPECT ecx, 0x1234
    PASS
.to32:
    dd .there
    dw KCODE32

TEST64 exception_in_compatibility_mode_uses_64_bit_frame
    jmp far [.to32]
    CODE 32
.there:
    mov dword [v_catch], .caught
    mov dword [v_catch + 4], 0
    mov [v_catch_sp], esp
    mov dword [v_catch_sp + 4], 0
.at:
    ud2
    CODE 64
.caught:
    EXPECT [v_vec], xUD
    EXPECTQ [v_cs], KCODE32
    EXPECTQ [v_ip], .at
    EXPECTQ [v_ss], KDATA
    PASS
.to32:
    dd .there
    dw KCODE32

TEST64 segments_count_in_compatibility_mode
    SETDESC SPARE, FREE, 0xff, 0x93, 4
    mov dword [FREE + 4], 0x5151
    jmp far [.to32]
    CODE 32
.there:
    mov ax, SPARE
    mov es, ax
    EXPECT [es:4], 0x5151
    mov dword [v_catch], .caught
    mov dword [v_catch + 4], 0
    mov [v_catch_sp], esp
    mov dword [v_catch_sp + 4], 0
    mov eax, [es:0x100]
    FAIL
    CODE 64
.caught:
    EXPECT [v_vec], xGP
    PASS
.to32:
    dd .there
    dw KCODE32

; What 64-bit code left in the upper halves is not part of any address.
TEST64 addresses_are_32_bits_in_compatibility_mode
    mov dword [FREE + 8], 0x1234
    mov rbx, 0x5a5a00000000 + FREE + 8
    mov rbp, 0x5a5a00000000 + FREE + 0x20
    mov rax, 0x5a5a00000000
    or rsp, rax
    jmp far [.to32]
    CODE 32
.there:
    mov eax, [ebx]
    EXPECT eax, 0x1234
    push dword 0x77
    pop ecx
    EXPECT ecx, 0x77
    call .sub
    mov dword [ebp], 0x4321
    leave
    EXPECT ebp, 0x4321
    EXPECT esp, FREE + 0x24
    PASS
.sub:
    ret
    CODE 64
.to32:
    dd .there
    dw KCODE32

; The same bytes at the same address, reached by the same kind of branch, in both sizes of code.
TEST64 indirect_calls_find_code_of_the_right_size
    mov edi, 3
.again:
    xor eax, eax
    mov ebx, .both
    call rbx
    EXPECT eax, 1                   ; INC RAX with a prefix
    jmp far [.to32]
    CODE 32
.there:
    xor eax, eax
    mov ebx, .both
    call ebx
    EXPECT eax, 0                   ; DEC EAX, INC EAX
    dec edi
    jz .done
    jmp KCODE64:.again
.done:
    PASS
.both:
    db 0x48, 0xff, 0xc0
    ret
    CODE 64
.to32:
    dd .there
    dw KCODE32

TEST64 far_jump_to_l_and_d_is_gp
    SETDESC SPARE, 0, 0xfffff, 0x9b, 0xe
    FAULTS xGP, SPARE, jmp far [.bad]
    PASS
.bad:
    dd 0
    dw SPARE

TEST64 direct_far_jump_is_ud
    CATCH .caught
    db 0xea, 0, 0, 0, 0, 0, 0
.caught:
    EXPECT [v_vec], xUD
    PASS

TEST64 legacy_instructions_are_ud
%macro IS_UD 1+
    CATCH %%caught
    db %1
    FAIL
%%caught:
    EXPECT [v_vec], xUD
%endmacro
    IS_UD 0x06                      ; PUSH ES
    IS_UD 0x07                      ; POP ES
    IS_UD 0x27                      ; DAA
    IS_UD 0x37                      ; AAA
    IS_UD 0x60                      ; PUSHA
    IS_UD 0x61                      ; POPA
    IS_UD 0x62, 0xc0                ; BOUND/EVEX
    IS_UD 0x9a, 0, 0, 0, 0, 0, 0    ; CALL far
    IS_UD 0xce                      ; INTO
    IS_UD 0xd4, 10                  ; AAM
    IS_UD 0xd6                      ; SALC
    IS_UD 0x82, 0xc0, 0             ; the alias of 0x80
    PASS

TEST64 call_gate_64
    ; 16 bytes: the upper half of the offset follows
    SETGATE SPARE + 3, KCODE64, .sub, 0xec, 0
    mov qword [gdt + SPARE + 8], 0
    USER
    call far [.gate]
.back:
    mov ax, cs
    EXPECTW ax, UCODE64
    EXPECTQ rsp, STACK3
    KERNEL
    PASS
.sub:
    EXPECTQ rsp, STACK0_ENTRY - 32
    EXPECTQ [rsp], .back
    EXPECTQ [rsp + 8], UCODE64
    EXPECTQ [rsp + 16], STACK3
    EXPECTQ [rsp + 24], UDATA
    mov ax, ss
    EXPECTW ax, 0
    o64 retf
.gate:
    dd 0
    dw SPARE + 3

TEST64 call_gate_64_with_type_in_the_upper_half_is_gp
    SETGATE SPARE, KCODE64, 0, 0x8c, 0
    mov dword [gdt + SPARE + 8], 0
    mov dword [gdt + SPARE + 12], 0x100
    FAULTS xGP, SPARE, call far [.gate]
    PASS
.gate:
    dd 0
    dw SPARE

TEST64 call_gate_to_32_bit_code_is_gp
    SETGATE SPARE, KCODE32, 0, 0x8c, 0
    mov qword [gdt + SPARE + 8], 0
    FAULTS xGP, KCODE32, call far [.gate]
    PASS
.gate:
    dd 0
    dw SPARE

TEST64 interrupt_gate_to_32_bit_code_is_gp
    SETVECTOR 0x31, KCODE32, 0, 0x8e
    FAULTS xGP, KCODE32, int 0x31
    PASS

TEST64 task_gate_and_16_bit_gate_are_gp
    SETVECTOR 0x31, KCODE64, 0, 0x85
    FAULTS xGP, 0x31 * 8 + 2, int 0x31
    SETVECTOR 0x31, KCODE64, 0, 0x86
    FAULTS xGP, 0x31 * 8 + 2, int 0x31
    PASS

TEST64 jump_to_tss_is_gp
    mov dword [gdt + TSS2 + 8], 0
    FAULTS xGP, TSS2, jmp far [.tss]
    PASS
.tss:
    dd 0
    dw TSS2

TEST64 noncanonical_rsp0_is_ss
    mov rax, NONCANONICAL
    mov [tss64 + 4], rax
    mov byte [idt64 + xDF * 16 + 4], 1
    USER
    mov rax, .caught
    mov [v_catch], rax
    mov rax, [v_ksp]
    mov [v_catch_sp], rax
    ud2                             ; #UD, then #SS: benign first, so #SS is delivered - which faults again
.caught:
    EXPECT [v_vec], xDF
    PASS

TEST64 syscall_and_sysret
    WRITE_MSR 0xc0000081, ((UCODE32) << 16) + KCODE64, 0
    WRITE_MSR 0xc0000082, 0, .kernel
    WRITE_MSR 0xc0000084, 0, 0x4700 | 0x200
    mov [v_ksp], rsp
    USER 0x3ed7
    cmp eax, eax                    ; ZF, PF
    std
    syscall
.back:
    mov ax, cs
    EXPECTW ax, UCODE64
    mov ax, ss
    EXPECTW ax, UDATA
    EXPECTQ rsp, STACK3
    cld
    KERNEL
    PASS
.kernel:
    EXPECTQ rcx, .back
    EXPECT_BITS r11d, 0x700 | 0x40, 0x600 | 0x40
    mov ax, cs
    EXPECTW ax, KCODE64
    mov ax, ss
    EXPECTW ax, KCODE64 + 8
    EXPECTQ rsp, STACK3             ; the stack is not switched
    push rax
    pushfq
    pop rax
    EXPECT_BITS eax, 0x4700, 0
    pop rax
    o64 sysret

TEST64 syscall_without_sce_is_ud
    WRITE_MSR 0xc0000080, 0, 0x900
    FAULTS xUD, NO_ERROR, syscall
    FAULTS xUD, NO_ERROR, o64 sysret
    PASS

TEST64 sysret_in_ring_3_is_gp
    USER
    USER_FAULTS xGP, 0, o64 sysret
    PASS

TEST64 sysret_32_goes_to_compatibility_mode
    WRITE_MSR 0xc0000081, ((UCODE32) << 16) + KCODE64, 0
    WRITE_MSR 0xc0000083, 0, .kernel ; CSTAR
    WRITE_MSR 0xc0000084, 0, 0
    mov [v_ksp], rsp
    mov ecx, .compat
    mov r11d, 0x202
    o32 sysret
    CODE 32
.compat:
    mov ax, cs
    EXPECTW ax, UCODE32
    mov esp, STACK3
    mov eax, -1
    inc eax
    EXPECT eax, 0
    syscall
.back:
    int 0x30
    CODE 64
    PASS
.kernel:
    EXPECTQ rcx, .back
    mov ax, cs
    EXPECTW ax, KCODE64
    o32 sysret

; AMD: SYSENTER and SYSEXIT are not for long mode [APM 3 SYSENTER].
TEST64 sysenter_is_ud_in_long_mode
    WRITE_MSR 0x174, 0, KCODE64
    FAULTS xUD, NO_ERROR, sysenter
    FAULTS xUD, NO_ERROR, sysexit
    PASS

TEST64 cr8_is_four_bits
    mov eax, 5
    mov cr8, rax
    mov rbx, cr8
    EXPECTQ rbx, 5
    mov eax, 0x10
    FAULTS xGP, 0, mov cr8, rax
    PASS

TEST64 cr0_illegal_combinations_are_gp
    mov rax, cr0
    and eax, ~1                     ; PG without PE
    FAULTS xGP, 0, mov cr0, rax
    mov rax, cr0
    and eax, ~0x40000000
    or eax, 0x20000000              ; NW without CD
    FAULTS xGP, 0, mov cr0, rax
    mov rax, cr0
    bts rax, 32
    FAULTS xGP, 0, mov cr0, rax
    PASS

TEST64 cr4_illegal_combinations_are_gp
    mov rax, cr4
    and eax, ~0x20                  ; PAE in long mode
    FAULTS xGP, 0, mov cr4, rax
    mov rax, cr4
    bts rax, 63
    FAULTS xGP, 0, mov cr4, rax
    mov rax, cr4
    bts rax, 15                     ; reserved
    FAULTS xGP, 0, mov cr4, rax
    PASS

TEST64 unimplemented_control_registers_are_ud
%macro CR_IS_UD 1
    CATCH %%caught
    db 0x0f, 0x20, 0xc0 + (%1) * 8
    FAIL
%%caught:
    EXPECT [v_vec], xUD
%endmacro
    CR_IS_UD 1
    CR_IS_UD 5
    CR_IS_UD 6
    CR_IS_UD 7
    PASS

TEST64 efer_lme_cannot_change_with_paging
    mov ecx, 0xc0000080
    rdmsr
    EXPECT_BITS eax, 0x500, 0x500
    and eax, ~0x100
    FAULTS xGP, 0, wrmsr
    rdmsr
    or eax, 0x200                   ; reserved
    FAULTS xGP, 0, wrmsr
    PASS

TEST64 leaving_long_mode
    jmp far [.to32]
    CODE 32
.compat:
    mov ax, KDATA
    mov ss, ax
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    mov ecx, 0xc0000080
    rdmsr
    EXPECT_BITS eax, 0x500, 0x100   ; LMA went with paging, LME stays
    and eax, ~0x100
    wrmsr
    mov eax, cr4
    and eax, ~0x20
    mov cr4, eax
    lidt [idt32_pointer]
    FAULTS xUD, NO_ERROR, ud2       ; 32-bit gates again
    PASS
.to32:
    dd .compat
    dw KCODE32

TEST64 paging_with_lme_without_pae_is_gp
    jmp far [.to32]
    CODE 32
.compat:
    mov ax, KDATA
    mov ss, ax
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    lidt [idt32_pointer]
    mov eax, cr4
    and eax, ~0x20
    mov cr4, eax
    mov eax, cr0
    or eax, 0x80000000
    FAULTS xGP, 0, mov cr0, eax
    PASS
.to32:
    dd .compat
    dw KCODE32

TEST64 rip_relative_addresses
    mov eax, [rel .value]
    EXPECT eax, 0x600df00d
    lea rbx, [rel .value]
    EXPECTQ rbx, .value
    cmp dword [rel .value], 0x600df00d ; counted from the end, behind the immediate
    EXPECT_IF z
    PASS
.value:
    dd 0x600df00d

TEST64 address_size_32_truncates
    mov rbx, 0xffffffff00000000 + v_user
    mov dword [v_user], 0x1212
    EXPECT [ebx], 0x1212
    lea rax, [ebx + 4]
    EXPECTQ rax, v_user + 4
    PASS

TEST64 loop_and_string_with_32_bit_address_size
    mov rcx, 0xffffffff00000003
    mov rdi, 0xffffffff00000000 + FREE
    mov al, 0x77
    a32 rep stosb
    EXPECTQ rcx, 0
    EXPECTQ rdi, FREE + 3
    EXPECT [FREE], 0x00777777
    PASS

TEST64 push_and_pop_sizes
    mov rbx, rsp
    push word 0x1234
    lea rcx, [rsp + 2]
    EXPECTQ rcx, rbx
    pop ax
    push -1
    EXPECTQ [rsp], -1
    pop rax
    push fs
    lea rcx, [rsp + 8]
    EXPECTQ rcx, rbx
    pop fs
    EXPECTQ rsp, rbx
    PASS

TEST64 ldt_descriptor_is_16_bytes
    mov dword [gdt + LDT + 8], 0
    mov dword [ldt + 8], DESCRIPTOR(0, 0xfffff, 0x93, 0xc) & 0xffffffff
    mov dword [ldt + 12], DESCRIPTOR(0, 0xfffff, 0x93, 0xc) >> 32
    mov ax, LDT
    lldt ax
    mov ax, 0xc
    mov es, ax
    mov ax, 0x44                    ; beyond the limit of 0x3f
    FAULTS xGP, 0x44, mov es, ax
    mov dword [gdt + LDT + 12], 0x100 ; a type in the upper half
    mov ax, LDT
    FAULTS xGP, LDT, lldt ax
    mov dword [gdt + LDT + 12], 0
    mov dword [gdt + LDT + 8], 0x8000 ; a base that is not canonical
    FAULTS xGP, LDT, lldt ax
    PASS

TEST64 sgdt_stores_ten_bytes
    mov qword [v_user + 2], -1
    sgdt [v_user]
    EXPECTW [v_user], GDT_LIMIT
    EXPECTQ [v_user + 2], gdt
    PASS

TEST64 lgdt_noncanonical_base_is_gp
    mov rax, NONCANONICAL
    mov [v_user + 2], rax
    FAULTS xGP, 0, lgdt [v_user]
    FAULTS xGP, 0, lidt [v_user]
    PASS

TEST64 mov_from_segment_to_64_bit_register_zero_extends
    mov rax, -1
    mov rax, ds
    EXPECTQ rax, KDATA
    PASS

TEST64 alignment_check_in_ring_3
    mov rax, cr0
    or eax, 1 << 18
    mov cr0, rax
    USER 0x40202
    USER_FAULTS xAC, 0, mov eax, [v_user + 1]
    USER 0x40202
    mov eax, [v_user + 4]
    mov al, [v_user + 1]
    USER_FAULTS xAC, 0, mov rax, [v_user + 4]
    USER 0x202
    mov eax, [v_user + 1]
    KERNEL
    PASS

TEST64 lock_prefix_rules
    lock add dword [v_user], 1
    EXPECT [v_user], 1
    IS_UD 0xf0, 0x01, 0xc0          ; LOCK ADD EAX, EAX
    IS_UD 0xf0, 0x8b, 0x00          ; LOCK MOV
    IS_UD 0xf0, 0x39, 0x00          ; LOCK CMP [RAX], EAX
    IS_UD 0xf0, 0x90                ; LOCK NOP
    PASS

TEST64 fifteen_bytes_are_the_limit
    CATCH .caught
    times 13 db 0x2e
    nop
    nop
    times 14 db 0x2e
    nop                             ; 15 bytes
.at:
    times 15 db 0x2e
    nop
    FAIL
.caught:
    EXPECT [v_vec], xGP
    EXPECT [v_ip], .at
    PASS

TEST64 ud_instructions
    FAULTS xUD, NO_ERROR, ud2
    IS_UD 0x0f, 0xb9, 0xc0          ; UD1
    IS_UD 0x0f, 0xff, 0xc0          ; UD0
    IS_UD 0x0f, 0xaa                ; RSM outside of SMM
    IS_UD 0x0f, 0x01, 0xc2          ; VMLAUNCH
    IS_UD 0x0f, 0x01, 0xd8          ; VMRUN
    PASS
