; Protected mode: loading segment registers, limits, types, privilege. [SDM 3A 3.4, 5], [APM 2 4]
%include "guest.inc"

TEST32 null_selector_loads_and_faults_at_use
    xor eax, eax
    mov es, ax
    FAULTS xGP, 0, mov ebx, [es:0]
    mov ax, 3                       ; null with any RPL
    mov fs, ax
    FAULTS xGP, 0, mov [fs:v_user], eax
    PASS

TEST32 null_selector_in_ss_is_gp
    xor eax, eax
    FAULTS xGP, 0, mov ss, ax
    PASS

TEST32 selector_beyond_gdt_limit_is_gp
    mov ax, GDT_LIMIT + 1
    FAULTS xGP, GDT_LIMIT + 1, mov es, ax
    mov ax, GDT_LIMIT + 1 + 3       ; RPL is not part of the error code
    FAULTS xGP, GDT_LIMIT + 1, mov es, ax
    PASS

TEST32 selector_in_ldt_without_ldt_is_gp
    mov ax, 0xc
    FAULTS xGP, 0xc, mov es, ax
    PASS

TEST32 ldt_descriptors_are_used
    mov ax, LDT
    lldt ax
    mov dword [ldt + 8], DESCRIPTOR(FREE, 0xff, 0x93, 4) & 0xffffffff
    mov dword [ldt + 12], DESCRIPTOR(FREE, 0xff, 0x93, 4) >> 32
    mov ax, 0xc
    mov es, ax
    mov dword [es:0xfc], 0x13572468
    EXPECT [FREE + 0xfc], 0x13572468
    FAULTS xGP, 0, mov byte [es:0x100], 1
    sldt ax
    EXPECTW ax, LDT
    PASS

TEST32 lldt_wrong_type_is_gp_not_present_is_np
    mov ax, TSS2
    FAULTS xGP, TSS2, lldt ax
    mov ax, 0xc
    FAULTS xGP, 0xc, lldt ax        ; must be in the GDT
    mov byte [gdt + LDT + 5], 2
    mov ax, LDT
    FAULTS xNP, LDT, lldt ax
    xor eax, eax
    lldt ax                         ; null: no LDT
    PASS

TEST32 byte_granular_limit
    SETDESC SPARE, FREE, 0xfff, 0x93, 4
    mov ax, SPARE
    mov es, ax
    mov al, [es:0xfff]
    FAULTS xGP, 0, mov al, [es:0x1000]
    FAULTS xGP, 0, mov ax, [es:0xfff]
    FAULTS xGP, 0, mov eax, [es:0xffd]
    mov eax, [es:0xffc]
    FAULTS xGP, 0, mov eax, [es:0xffffffff]
    PASS

TEST32 page_granular_limit_has_low_bits_set
    SETDESC SPARE, FREE, 0, 0x93, 0xc
    mov ax, SPARE
    mov es, ax
    mov al, [es:0xfff]
    FAULTS xGP, 0, mov al, [es:0x1000]
    lsl ecx, [.selector]
    EXPECT_IF z
    EXPECT ecx, 0xfff
    PASS
.selector:
    dw SPARE

TEST32 expand_down_32
    SETDESC SPARE, 0, 0x40, 0x97, 0xc ; valid above 0x40fff
    mov ax, SPARE
    mov es, ax
    FAULTS xGP, 0, mov al, [es:0x40fff]
    FAULTS xGP, 0, mov al, [es:0]
    mov al, [es:0x41000]
    mov eax, [es:0x41000]
    FAULTS xGP, 0, mov eax, [es:0x40fff]
    FAULTS xGP, 0, mov ax, [es:0xffffffff]
    PASS

TEST32 expand_down_16_ends_at_ffff
    SETDESC SPARE, 0, 0x7fff, 0x97, 0
    mov ax, SPARE
    mov es, ax
    FAULTS xGP, 0, mov al, [es:0x7fff]
    mov al, [es:0xffff]
    FAULTS xGP, 0, mov ax, [es:0xffff]
    FAULTS xGP, 0, mov al, [es:0x10000]
    PASS

TEST32 expand_down_stack_fault_is_ss
    SETDESC SPARE, 0, 0x5fff, 0x97, 4
    mov ax, SPARE
    mov ss, ax
    mov esp, 0x7000
    FAULTS xSS, 0, mov eax, [ss:0x5fff]
    mov ax, SPARE
    mov ss, ax
    mov eax, [ss:0x6000]
    push eax
    PASS

TEST32 read_only_data_cannot_be_written
    SETDESC SPARE, 0, 0xfffff, 0x91, 0xc
    mov ax, SPARE
    mov es, ax
    mov eax, [es:v_user]
    FAULTS xGP, 0, mov [es:v_user], eax
    FAULTS xGP, 0, add dword [es:v_user], 0
    FAULTS xGP, 0, xchg eax, [es:v_user]
    FAULTS xGP, SPARE, mov ss, [.selector]
    PASS
.selector:
    dw SPARE

TEST32 execute_only_code_cannot_be_read
    SETDESC SPARE, 0, 0xfffff, 0x99, 0xc
    jmp dword SPARE:.there
.there:
    CATCH .caught
.at:
    mov eax, [cs:v_user]
    FAIL
.caught:
    EXPECT [v_vec], xGP
    EXPECT [v_err], 0
    EXPECT [v_ip], .at
    EXPECT [v_cs], SPARE
    mov ax, SPARE
    FAULTS xGP, SPARE, mov es, ax   ; and not be loaded as data
    PASS

TEST32 code_cannot_be_written
    FAULTS xGP, 0, mov [cs:v_user], eax
    mov eax, [cs:v_user]
    mov ax, KCODE32                 ; readable code in a data register
    mov es, ax
    mov eax, [es:v_user]
    FAULTS xGP, 0, mov [es:v_user], eax
    PASS

TEST32 not_present_is_np_and_ss_for_ss
    SETDESC SPARE, 0, 0xfffff, 0x13, 0xc
    mov ax, SPARE
    FAULTS xNP, SPARE, mov ds, ax
    FAULTS xSS, SPARE, mov ss, ax
    PASS

TEST32 faulting_load_keeps_the_old_segment
    mov ax, KDATA
    mov es, ax
    SETDESC SPARE, 0, 0xfffff, 0x13, 0xc
    mov ax, SPARE
    FAULTS xNP, SPARE, mov fs, ax
    mov ax, fs
    EXPECTW ax, KDATA
    mov eax, [fs:v_user]
    PASS

TEST32 system_descriptor_in_data_register_is_gp
    mov ax, TSS2
    FAULTS xGP, TSS2, mov es, ax
    mov ax, LDT
    FAULTS xGP, LDT, mov gs, ax
    PASS

TEST32 loading_sets_accessed_bit
    SETDESC SPARE, 0, 0xfffff, 0x92, 0xc
    mov ax, SPARE
    mov es, ax
    EXPECTB [gdt + SPARE + 5], 0x93
    SETDESC SPARE + 8, 0, 0xfffff, 0x9a, 0xc
    jmp dword (SPARE + 8):.there
.there:
    EXPECTB [gdt + SPARE + 8 + 5], 0x9b
    PASS

TEST32 ss_needs_dpl_and_rpl_equal_cpl
    mov ax, KDATA + 1
    FAULTS xGP, KDATA, mov ss, ax
    mov ax, UDATA
    FAULTS xGP, UDATA & ~3, mov ss, ax
    mov ax, UDATA & ~3
    FAULTS xGP, UDATA & ~3, mov ss, ax
    PASS

TEST32 data_rpl_above_dpl_is_gp
    mov ax, KDATA + 1
    FAULTS xGP, KDATA, mov ds, ax
    mov ax, UDATA & ~3              ; RPL 0, DPL 3 is fine
    mov es, ax
    PASS

TEST32 user_cannot_load_kernel_data
    USER
    mov ax, KDATA
    USER_FAULTS xGP, KDATA, mov es, ax
    USER
    mov ax, KDATA + 3
    USER_FAULTS xGP, KDATA, mov es, ax
    PASS

TEST32 conforming_code_is_readable_from_ring_3
    SETDESC SPARE, 0, 0xfffff, 0x9f, 0xc ; conforming, DPL 0
    USER
    mov ax, SPARE + 3
    mov es, ax
    mov eax, [es:v_user]
    KERNEL
    PASS

TEST32 nonconforming_code_needs_privilege_as_data
    USER
    mov ax, KCODE32 + 3
    USER_FAULTS xGP, KCODE32, mov es, ax
    PASS

TEST32 lar_and_lsl_report_descriptors
    mov ecx, KDATA
    lar eax, cx
    EXPECT_IF z
    EXPECT eax, 0x00cf9300
    lsl eax, cx
    EXPECT_IF z
    EXPECT eax, 0xffffffff
    mov ecx, LDT
    lar eax, cx
    EXPECT_IF z
    EXPECT eax, 0x00008200
    lsl eax, cx
    EXPECT eax, 0x3f
    PASS

TEST32 lar_and_lsl_refuse_without_fault
    mov eax, 0x12345678
    mov ecx, GDT_LIMIT + 1
    lar eax, cx
    EXPECT_IF nz
    EXPECT eax, 0x12345678
    xor ecx, ecx
    lsl eax, cx
    EXPECT_IF nz
    SETGATE SPARE, KCODE32, 0, 0x8e, 0 ; an interrupt gate is not for LAR, a call gate not for LSL
    mov ecx, SPARE
    lar eax, cx
    EXPECT_IF nz
    SETGATE SPARE, KCODE32, 0, 0x8c, 0
    lar eax, cx
    EXPECT_IF z
    EXPECT eax, 0x00008c00
    lsl eax, cx
    EXPECT_IF nz
    PASS

TEST32 lar_checks_privilege
    USER
    mov ecx, KDATA + 3
    lar eax, cx
    EXPECT_IF nz
    mov ecx, UDATA
    lar eax, cx
    EXPECT_IF z
    KERNEL
    PASS

TEST32 verr_and_verw
    mov ax, KDATA
    verr ax
    EXPECT_IF z
    verw ax
    EXPECT_IF z
    mov ax, KCODE32
    verr ax
    EXPECT_IF z
    verw ax
    EXPECT_IF nz
    SETDESC SPARE, 0, 0xfffff, 0x99, 0xc ; execute only
    mov ax, SPARE
    verr ax
    EXPECT_IF nz
    SETDESC SPARE, 0, 0xfffff, 0x91, 0xc ; read only
    verr ax
    EXPECT_IF z
    verw ax
    EXPECT_IF nz
    mov ax, TSS
    verr ax
    EXPECT_IF nz
    PASS

TEST32 arpl_raises_rpl
    mov ax, 0x10
    mov bx, 0x23
    arpl ax, bx
    EXPECT_IF z
    EXPECTW ax, 0x13
    arpl ax, bx
    EXPECT_IF nz
    EXPECTW ax, 0x13
    PASS

TEST32 lds_and_les_load_pointer
    mov dword [v_user], 0x11223344
    mov word [v_user + 4], UDATA & ~3
    les ebx, [v_user]
    EXPECT ebx, 0x11223344
    mov ax, es
    EXPECTW ax, UDATA & ~3
    mov word [v_user + 4], GDT_LIMIT + 1
    mov ebx, 5
    FAULTS xGP, GDT_LIMIT + 1, lfs ebx, [v_user]
    EXPECT ebx, 5
    PASS

TEST32 push_segment_writes_selector
    mov dword [STACK0 - 4], 0xffffffff
    push ds
    pop eax
    EXPECTW ax, KDATA
    push word KDATA
    pop word [v_user]
    EXPECT esp, STACK0
    PASS

TEST32 segment_base_is_added_and_wraps
    SETDESC SPARE, 0xfffff000, 0xfffff, 0x93, 0xc
    mov ax, SPARE
    mov es, ax
    mov dword [v_user], 0x5aa51234
    EXPECT [es:v_user + 0x1000], 0x5aa51234
    PASS

TEST32 code_limit_is_checked_at_fetch
    SETDESC SPARE, 0, 0x8, 0x9b, 0xc ; limit 0x8fff: image code above is out
    mov dword [FREE], 0
    mov byte [0x600], 0xf4
    CATCH .caught
    jmp dword SPARE:0x9000
    FAIL
.caught:
    EXPECT [v_vec], xGP
    EXPECT [v_err], 0
    PASS

TEST32 instruction_across_code_limit_is_gp
    mov dword [0x40ffe], 0x90909090
    SETDESC SPARE, 0, 0x40fff, 0x9b, 4
    mov byte [0x40ffe], 0xb8        ; MOV EAX, imm32: its end is beyond the limit
    CATCH .caught
    jmp dword SPARE:0x40ffe
    FAIL
.caught:
    EXPECT [v_vec], xGP
    EXPECT [v_ip], 0x40ffe
    EXPECT [v_cs], SPARE
    PASS

TEST32 stack_of_16_bits_uses_sp
    mov esp, 0x12340000 + 0x7000
    mov ax, KDATA16
    mov ss, ax
    push dword 0x13579bdf
    EXPECT esp, 0x12346ffc
    EXPECT [0x6ffc], 0x13579bdf
    pop eax
    EXPECT esp, 0x12347000
    mov esp, 0x12340000
    push ax                         ; SP wraps within its 16 bits
    EXPECT esp, 0x1234fffe
    PASS

TEST32 enter_and_leave_on_16_bit_stack
    mov ax, KDATA16
    mov ss, ax
    mov esp, 0xabcd7000
    mov ebp, 0x11112222
    enter 16, 0
    EXPECT ebp, 0x11116ffc - 0x11110000 + 0xabcd0000
    EXPECT esp, 0xabcd6fec
    leave
    EXPECT esp, 0xabcd7000
    EXPECT ebp, 0x11112222
    PASS

TEST32 prefix_67_uses_16_bit_addresses
    mov ebx, 0xffff0000 + v_user
    mov dword [v_user + 4], 0x2468ace0
    mov eax, [bx + 4]
    EXPECT eax, 0x2468ace0
    lea eax, [bx + 0x7fff]
    EXPECT eax, (v_user + 0x7fff) & 0xffff
    PASS

TEST32 prefix_66_in_16_bit_code
    jmp dword KCODE16:.in16
    CODE 16
.in16:
    mov eax, 0x12345678
    mov bx, ax
    o32 push eax
    o32 pop ecx
    EXPECT ecx, 0x12345678
    a32 mov edx, [esp - 4]
    EXPECT edx, 0x12345678
    jmp dword KCODE32:.in32
    CODE 32
.in32:
    EXPECTW bx, 0x5678
    PASS

TEST32 jump_in_16_bit_code_truncates_ip
    mov byte [FREE], 0
    SETDESC SPARE, FREE, 0x1ffff, 0x9b, 0 ; 16-bit code over 64 KiB
    mov dword [FREE + 0x2000], 0x90eb0000 ; not reached
    mov byte [FREE + 0xfff0], 0xeb  ; JMP $+0x12, wraps to 0x0002
    mov byte [FREE + 0xfff1], 0x10
    mov byte [FREE + 2], 0x0f
    mov byte [FREE + 3], 0x0b       ; UD2
    CATCH .caught
    jmp dword SPARE:0xfff0
.caught:
    EXPECT [v_vec], xUD
    EXPECT [v_ip], 2
    PASS

TEST32 far_jump_to_data_is_gp
    FAULTS xGP, KDATA, jmp dword KDATA:0
    FAULTS xGP, 0, jmp dword 0:0
    FAULTS xGP, UCODE32 & ~3, jmp dword (UCODE32 & ~3):0
    PASS

TEST32 far_jump_not_present_is_np
    SETDESC SPARE, 0, 0xfffff, 0x1b, 0xc
    FAULTS xNP, SPARE, jmp dword SPARE:0
    PASS

TEST32 far_jump_target_beyond_limit_is_gp
    SETDESC SPARE, 0, 0xffff, 0x9b, 4
    FAULTS xGP, 0, jmp dword SPARE:0x10000
    PASS

TEST32 far_call_to_conforming_keeps_cpl
    SETDESC SPARE, 0, 0xfffff, 0x9f, 0xc
    USER
    call dword SPARE:.sub
    mov ax, cs
    EXPECTW ax, UCODE32
    KERNEL
    PASS
.sub:
    mov ax, cs
    EXPECTW ax, SPARE + 3
    retf

TEST32 far_return_inner_is_gp
    USER
    push dword KCODE32
    push dword .nowhere
    USER_FAULTS xGP, KCODE32, retf
    PASS
.nowhere:
    FAIL

TEST32 far_return_outer_switches_stack_and_clears_segments
    mov [v_ksp], esp
    mov ax, KDATA
    mov fs, ax
    mov ax, UDATA
    mov gs, ax
    push dword UDATA
    push dword STACK3
    push dword UCODE32
    push dword .user
    retf
.user:
    mov ax, ds
    EXPECTW ax, 0
    mov ax, fs
    EXPECTW ax, 0
    mov ax, gs
    EXPECTW ax, UDATA
    mov ax, ss
    EXPECTW ax, UDATA
    EXPECT esp, STACK3
    KERNEL
    PASS

TEST32 far_return_outer_releases_parameters_on_both_stacks
    mov [v_ksp], esp
    push dword UDATA
    push dword STACK3 - 8
    push dword 0
    push dword 0
    push dword UCODE32
    push dword .user
    retf 8
.user:
    EXPECT esp, STACK3
    mov ax, UDATA
    mov ds, ax
    KERNEL
    PASS

TEST32 privileged_instructions_fault_in_ring_3
    USER
    USER_FAULTS xGP, 0, hlt
    USER
    USER_FAULTS xGP, 0, mov eax, cr0
    USER
    USER_FAULTS xGP, 0, mov dr7, eax
    USER
    USER_FAULTS xGP, 0, lgdt [gdt_pointer]
    USER
    USER_FAULTS xGP, 0, lidt [idt32_pointer]
    USER
    USER_FAULTS xGP, 0, clts
    USER
    USER_FAULTS xGP, 0, invlpg [0]
    USER
    USER_FAULTS xGP, 0, wbinvd
    USER
    USER_FAULTS xGP, 0, rdmsr
    USER
    USER_FAULTS xGP, 0, lmsw ax
    USER
    USER_FAULTS xGP, 0, ltr ax
    USER
    USER_FAULTS xGP, 0, lldt ax
    PASS

TEST32 iopl_governs_cli_and_sti
    USER 0x202
    USER_FAULTS xGP, 0, cli
    USER 0x202
    USER_FAULTS xGP, 0, sti
    USER 0x3202
    cli
    pushfd
    pop ecx
    sti
    KERNEL
    EXPECT_BITS ecx, 0x200, 0
    PASS

TEST32 popf_in_ring_3_changes_neither_iopl_nor_if
    USER 0x202
    push dword 0x3002
    popfd
    pushfd
    pop ecx
    KERNEL
    EXPECT_BITS ecx, 0x3200, 0x200
    PASS

TEST32 umip_hides_tables_from_ring_3
    mov eax, cr4
    or eax, 1 << 11
    mov cr4, eax
    USER
    USER_FAULTS xGP, 0, sgdt [v_user]
    USER
    USER_FAULTS xGP, 0, sidt [v_user]
    USER
    USER_FAULTS xGP, 0, sldt ax
    USER
    USER_FAULTS xGP, 0, str ax
    USER
    USER_FAULTS xGP, 0, smsw ax
    smsw ax
    PASS

TEST32 sgdt_and_sidt_store_limit_and_base
    sgdt [v_user]
    EXPECTW [v_user], GDT_LIMIT
    EXPECT [v_user + 2], gdt
    sidt [v_user]
    EXPECTW [v_user], 64 * 8 - 1
    EXPECT [v_user + 2], idt32
    PASS

TEST32 smsw_and_lmsw
    smsw eax
    mov ecx, cr0
    EXPECT eax, ecx
    mov ax, 0xb                     ; PE, MP, TS
    lmsw ax
    mov ecx, cr0
    EXPECT_BITS ecx, 0xf, 0xb
    xor eax, eax
    lmsw ax                         ; cannot clear PE
    mov ecx, cr0
    EXPECT_BITS ecx, 0xf, 1
    PASS
