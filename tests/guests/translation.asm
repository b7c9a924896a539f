; What translation caches must not hide, and what the processor itself reads and writes. [SDM 3A 4.8, 4.10], [APM 2 5.4, 5.5]
%include "guest.inc"
%define PTE(page) (PT + (page) / 512)
%macro FLUSH 0
    mov rax, cr3
    mov cr3, rax
%endmacro
; The GDT moves to FREE, or another page.
%macro MOVE_GDT 1
    mov esi, gdt
    mov edi, %1
    mov ecx, (GDT_LIMIT + 1) / 4
    rep movsd
    mov qword [gdt_pointer + 2], %1
    lgdt [gdt_pointer]
%endmacro

TEST64 fetch_sets_the_accessed_bit
    mov byte [FREE], 0xc3
    mov qword [PTE(FREE)], FREE | 7
    FLUSH
    mov ebx, FREE
    call rbx
    EXPECT_BITS [PTE(FREE)], 0x60, 0x20
    mov qword [PTE(FREE)], FREE | 7
    invlpg [FREE]
    call rbx
    EXPECT_BITS [PTE(FREE)], 0x60, 0x20
    PASS

TEST64 descriptor_load_sets_dirty_when_it_sets_accessed
    SETDESC SPARE, 0, 0xfffff, 0x92, 0xc ; not accessed
    MOVE_GDT FREE
    mov qword [PTE(FREE)], FREE | 7
    FLUSH
    mov ax, KDATA                   ; accessed already: only a read
    mov es, ax
    EXPECT_BITS [PTE(FREE)], 0x60, 0x20
    mov ax, SPARE
    mov es, ax
    EXPECT_BITS [PTE(FREE)], 0x60, 0x60
    PASS

TEST64 gdt_on_a_supervisor_page_serves_ring_3
    MOVE_GDT FREE
    mov qword [PTE(FREE)], FREE | 3
    FLUSH
    USER
    mov ax, UDATA
    mov es, ax
    lar ecx, ax
    EXPECT_IF z
    KERNEL
    PASS

TEST64 gdt_read_only_page_faults_at_accessed_bit
    SETDESC SPARE, 0, 0xfffff, 0x92, 0xc
    MOVE_GDT FREE
    mov qword [PTE(FREE)], FREE | 5
    FLUSH
    mov ax, KDATA
    mov es, ax
    mov ax, SPARE
    FAULTS xPF, 3, mov es, ax
    PASS

TEST64 descriptor_read_fault_is_a_supervisor_access
    MOVE_GDT FREE + 0xfe8           ; its first three descriptors are on FREE's page
    mov qword [PTE(FREE + 0x1000)], 0
    CATCH .caught
    invlpg [FREE + 0x1000]
    ; the handler needs KCODE64 and KDATA, which are there
    mov ax, UDATA
    mov es, ax
    FAIL
.caught:
    EXPECT [v_vec], xPF
    EXPECT [v_err], 0
    EXPECTQ [v_cr2], FREE + 0xfe8 + (UDATA & ~7)
    PASS

TEST64 user_and_supervisor_caches_are_both_flushed
    USER
    mov ecx, [FREE]
    mov [FREE], ecx
    KERNEL
    mov [FREE], ecx
    mov qword [PTE(FREE)], FREE | 1
    invlpg [FREE]
    FAULTS xPF, 3, mov [FREE], eax
    USER
    USER_FAULTS xPF, 5, mov ecx, [FREE]
    PASS

TEST64 smep_enable_is_seen_by_cached_code
    mov edi, PT
    mov ecx, 0x40
.page:
    and qword [rdi], ~4
    add edi, 8
    loop .page
    FLUSH
    mov byte [FREE], 0xc3
    mov ebx, FREE
    call rbx                        ; decoded and cached
    mov rax, cr4
    or eax, 1 << 20
    mov cr4, rax
    CATCH .caught
    call rbx
    FAIL
.caught:
    EXPECT [v_vec], xPF
    EXPECT [v_err], 0x11
    PASS

TEST64 nx_is_seen_by_cached_code_after_invlpg
    mov byte [FREE], 0xc3
    mov ebx, FREE
    call rbx
    bts qword [PTE(FREE)], 63
    invlpg [FREE]
    CATCH .caught
    call rbx
    FAIL
.caught:
    EXPECT [v_vec], xPF
    PASS

TEST64 user_code_page_taken_from_ring_3
    mov byte [FREE], 0xc3
    mov ebx, FREE
    USER
    call rbx
    KERNEL
    call rbx
    and qword [PTE(FREE)], ~4
    invlpg [FREE]
    call rbx                        ; fine here
    mov qword [v_catch], .caught
    USER
    call rbx
    FAIL
.caught:
    EXPECT [v_vec], xPF
    EXPECT [v_err], 0x15
    EXPECTQ [v_ip], FREE
    PASS

TEST64 locked_compare_faults_even_if_it_would_not_write
    mov qword [PTE(FREE)], FREE | 5
    mov eax, 1
    FAULTS xPF, 3, lock cmpxchg [FREE], ecx
    FAULTS xPF, 3, cmpxchg [FREE], ecx
    mov ecx, 0
    FAULTS xPF, 3, shl dword [FREE], cl
    FAULTS xPF, 3, lock btr dword [FREE], 0
    bt dword [FREE], 0
    PASS

TEST64 failed_compare_sets_dirty
    mov qword [PTE(FREE)], FREE | 7
    FLUSH
    mov dword [v_user], 0
    mov eax, 1
    lock cmpxchg [FREE], ecx
    EXPECT_IF nz
    EXPECT_BITS [PTE(FREE)], 0x40, 0x40
    PASS

TEST64 bit_string_reaches_other_pages
    mov ecx, 0x1000 * 8 + 3
    bts dword [FREE], ecx
    EXPECT [FREE + 0x1000], 8
    mov rcx, -32 * 4 - 32
    bts dword [FREE + 0x14], ecx    ; 20 bytes below
    EXPECT [FREE], 1
    mov qword [PTE(FREE + 0x1000)], 0
    invlpg [FREE + 0x1000]
    mov ecx, 0x1000 * 8
    FAULTS xPF, 2, bts dword [FREE], ecx
    EXPECTQ [v_cr2], FREE + 0x1000
    PASS

TEST64 gigabyte_page_flush_by_any_address
    mov qword [PDPT + 8], 0x87
    mov rbx, 0x40000000
    mov dword [HIGH_FREE], 5
    EXPECT [rbx + HIGH_FREE], 5
    mov dword [0xa00000], 9
    mov qword [PDPT + 8], PD_HIGH | 7
    mov qword [PD_HIGH + 8], 0xa00087
    invlpg [rbx + 0x12345]
    EXPECT [rbx + HIGH_FREE], 9
    PASS

TEST64 directory_change_needs_no_more_than_invlpg
    mov dword [0x200000], 1
    mov dword [0x400000], 2
    EXPECT [0x200000], 1
    mov qword [PDPT + 8], PD_HIGH | 7 ; unrelated
    mov qword [0x25000], 0x400007
    mov qword [PD + 8], 0x25007
    invlpg [0x200000]
    EXPECT [0x200000], 2
    PASS

TEST64 write_permission_added_needs_no_flush
    mov qword [PTE(FREE)], FREE | 5
    FLUSH
    mov eax, [FREE]
    or qword [PTE(FREE)], 2
    mov dword [FREE], 7             ; at worst a spurious fault on hardware, which the walk below excludes
    EXPECT [FREE], 7
    PASS

TEST64 present_added_needs_no_flush
    mov qword [PTE(FREE)], 0
    invlpg [FREE]
    FAULTS xPF, 0, mov eax, [FREE]
    mov qword [PTE(FREE)], FREE | 7
    mov eax, [FREE]                 ; not-present entries are not cached
    PASS

TEST64 iretq_reads_its_stack_with_its_own_rights
    mov qword [PTE(FREE)], 0
    invlpg [FREE]
    USER
    mov esp, FREE + 0x100
    USER_FAULTS xPF, 4, iretq
    EXPECTQ [v_cr2], FREE + 0x100
    EXPECTQ [v_sp], FREE + 0x100
    PASS

TEST64 interrupt_frame_push_fault_is_double_fault_on_ist
    mov byte [idt64 + xDF * 16 + 4], 1
    mov qword [PTE(FREE)], 0
    invlpg [FREE]
    mov qword [tss64 + 4], FREE + 0x1000
    USER
    mov qword [v_catch], .caught
    ud2                             ; #UD, the push faults: #PF, whose push faults again: #DF
.caught:
    EXPECT [v_vec], xDF
    EXPECT [v_err], 0
    EXPECTQ [v_cr2], FREE + 0xff8
    PASS

TEST64 page_fault_then_missing_page_fault_gate_is_double_fault
    and byte [idt64 + xPF * 16 + 5], 0x7f
    mov qword [PTE(FREE)], 0
    invlpg [FREE]
    CATCH .caught
    mov eax, [FREE]
    FAIL
.caught:
    EXPECT [v_vec], xDF
    EXPECTQ [v_cr2], FREE
    PASS

TEST64 idt_across_two_pages
    mov esi, idt64
    mov edi, FREE + 0x1000 - 16 * xUD - 8 ; the gate of #UD lies across
    mov ecx, 64 * 2
    rep movsq
    lidt [.idt]
    mov qword [PTE(FREE)], HIGH_FREE | 7
    mov esi, FREE + 0x1000 - 16 * xUD - 8
    mov edi, HIGH_FREE + (0x1000 - 16 * xUD - 8)
    mov ecx, (16 * xUD + 8) / 8
    rep movsq
    invlpg [FREE]
    FAULTS xUD, NO_ERROR, ud2
    PASS
.idt:
    dw 64 * 16 - 1
    dq FREE + 0x1000 - 16 * xUD - 8

TEST64 idt_page_not_present_is_pf_then_df
    mov esi, idt64
    mov edi, FREE + 0x1000 - 16 * 0x20 ; vectors from 0x20 on are on the second page
    mov ecx, 64 * 2
    rep movsq
    lidt [.idt]
    mov qword [PTE(FREE + 0x1000)], 0
    invlpg [FREE + 0x1000]
    CATCH .caught
    int 0x31
    FAIL
.caught:
    EXPECT [v_vec], xPF
    EXPECT [v_err], 0
    EXPECTQ [v_cr2], FREE + 0x1000 + 16 * 0x11
    PASS
.idt:
    dw 64 * 16 - 1
    dq FREE + 0x1000 - 16 * 0x20

TEST64 xchg_across_pages_with_one_read_only
    mov qword [PTE(FREE + 0x1000)], (FREE + 0x1000) | 5
    invlpg [FREE + 0x1000]
    mov qword [FREE + 0xff8], 0
    mov rax, -1
    FAULTS xPF, 3, xchg [FREE + 0xffc], rax
    EXPECTQ [v_cr2], FREE + 0x1000
    EXPECT [FREE + 0xffc], 0
    PASS

TEST64 movs_reads_before_it_writes
    mov qword [PTE(FREE)], 0
    mov qword [PTE(FREE + 0x1000)], 0
    FLUSH
    mov esi, FREE + 8
    mov edi, FREE + 0x1008
    FAULTS xPF, 0, movsq
    EXPECTQ [v_cr2], FREE + 8
    PASS

TEST64 popq_to_memory_computes_its_address_after_the_pop
    push 0x11
    push 0x22
    pop qword [rsp]                 ; RSP already raised: overwrites the 0x11
    EXPECTQ [rsp], 0x22
    pop rax
    EXPECTQ rsp, STACK0
    PASS

TEST64 user_stack_overflow_into_supervisor_page
    mov qword [PTE(FREE)], FREE | 3
    invlpg [FREE]
    USER
    mov esp, FREE + 0x1004
    mov ecx, [FREE + 0x1000]
    USER_FAULTS xPF, 7, push rax
    EXPECTQ [v_sp], FREE + 0x1004
    EXPECT ecx, [FREE + 0x1000]
    PASS

TEST64 non_canonical_edge_by_page
    ; the last page below the hole can be mapped and used
    mov qword [PML4 + 255 * 8], PDPT | 7
    mov qword [PDPT + 511 * 8], 0x25007
    mov qword [0x25000 + 511 * 8], 0x26007
    mov qword [0x26000 + 511 * 8], FREE | 7
    mov rbx, 0x7ffffffffff8
    mov qword [rbx], 0x1234
    EXPECTQ [FREE + 0xff8], 0x1234
    FAULTS xGP, 0, mov rax, [rbx + 1]
    mov word [FREE + 0xffe], 0x9090 ; code running into the hole
    mov rbx, 0x7ffffffffffe
    CATCH .caught
    jmp rbx
.caught:
    EXPECT [v_vec], xGP
    EXPECTQ [v_ip], 0x800000000000
    PASS

TEST64 instruction_running_into_the_hole_is_gp
    mov qword [PML4 + 255 * 8], PDPT | 7
    mov qword [PDPT + 511 * 8], 0x25007
    mov qword [0x25000 + 511 * 8], 0x26007
    mov qword [0x26000 + 511 * 8], FREE | 7
    mov byte [FREE + 0xffe], 0xb8   ; MOV EAX, imm32
    mov rbx, 0x7ffffffffffe
    CATCH .caught
    jmp rbx
.caught:
    EXPECT [v_vec], xGP
    EXPECTQ [v_ip], 0x7ffffffffffe
    PASS

TEST64 compatibility_mode_addresses_wrap_at_4g
    mov dword [v_user], 0x1357
    jmp dword far [.to32]
    CODE 32
.there:
    mov ebx, 0xfffffff0
    EXPECT [ebx + v_user + 0x10], 0x1357
    jmp dword KCODE64:.back
    CODE 64
.back:
    PASS
.to32:
    dd .there
    dw KCODE32

TEST64 iretd_in_compatibility_mode_keeps_the_stack
    jmp dword far [.to32]
    CODE 32
.there:
    mov ax, KDATA
    mov ss, ax
    pushfd
    push dword KCODE32
    push dword .next
    iretd                           ; same level: SS and ESP are not popped outside of 64-bit mode
.next:
    EXPECT esp, STACK0
    jmp dword KCODE64:.back
    CODE 64
.back:
    PASS
.to32:
    dd .there
    dw KCODE32

TEST64 compatibility_mode_code_limit_counts
    SETDESC SPARE, 0, 0x9, 0x9b, 0xc ; up to 0x9fff
    mov byte [FREE], 0x90
    CATCH .caught
    jmp dword far [.to32]
.to32:
    dd 0xa000
    dw SPARE
.caught:
    EXPECT [v_vec], xGP
    EXPECT [v_err], 0
    PASS

TEST32P flat_access_over_4g_is_gp
    FAULTS xGP, 0, mov eax, [0xfffffffe]
    FAULTS xGP, 0, mov [0xffffffff], ax
    PASS

TEST32P gdt_descriptor_fault_has_supervisor_code
    mov esi, gdt
    mov edi, FREE + 0x1000 - 0x40
    mov ecx, (GDT_LIMIT + 1) / 4
    rep movsd
    mov dword [gdt_pointer + 2], FREE + 0x1000 - 0x40
    lgdt [gdt_pointer]
    mov dword [PT + (FREE + 0x1000) / 1024], 0
    invlpg [FREE + 0x1000]
    mov ax, SPARE
    FAULTS xPF, 0, mov es, ax
    EXPECT [v_cr2], FREE + 0x1000 - 0x40 + SPARE
    PASS

TEST32P tss_on_a_missing_page_faults_at_stack_switch
    mov esi, tss32
    mov edi, FREE
    mov ecx, 0x68 / 4
    rep movsd
    SETDESC SPARE, FREE, 0x67, 0x89, 0
    mov ax, SPARE
    ltr ax
    mov dword [PT + FREE / 1024], 0
    invlpg [FREE]
    mov al, 2
    out 0xec, al
    mov [v_ksp], esp
    USER
    ud2                             ; no stack to be had: double fault, triple fault
    FAIL
