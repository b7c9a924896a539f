; 4-level paging. [SDM 3A 4.5, 4.6, 4.10], [APM 2 5.3]
%include "guest.inc"
%define PTE(page) (PT + (page) / 512)
%macro FLUSH 0
    mov rax, cr3
    mov cr3, rax
%endmacro
; The image, tables and stacks become supervisor pages, all but 0x40000 and above.
%macro SUPERVISOR_LOW 0
    mov edi, PT
    mov ecx, 0x40
%%page:
    and qword [rdi], ~4
    add edi, 8
    loop %%page
%endmacro

TEST64 not_present_at_each_level
    mov rax, 0x8000000000           ; PML4[1]
    FAULTS xPF, 0, mov ebx, [rax]
    EXPECTQ [v_cr2], 0x8000000000
    mov rax, 0x40000000             ; PDPT[1]
    FAULTS xPF, 2, mov [rax], ebx
    EXPECTQ [v_cr2], 0x40000000
    mov rax, 0x1000000              ; PD[8]
    FAULTS xPF, 0, mov ebx, [rax + 5]
    EXPECTQ [v_cr2], 0x1000005
    mov qword [PTE(FREE)], 0
    FLUSH
    FAULTS xPF, 0, mov ebx, [FREE]
    EXPECTQ [v_cr2], FREE
    PASS

TEST64 negative_addresses
    mov rax, PML4
    mov qword [rax + 511 * 8], PDPT | 7
    mov qword [PDPT + 511 * 8], PD | 7
    mov dword [HIGH_FREE], 0x1234
    mov rbx, 0xffffffffc0000000
    EXPECT [rbx + HIGH_FREE], 0x1234
    EXPECT [dword 0xffffffffc0200000], 0x1234 ; a displacement of 32 bits is sign-extended
    PASS

TEST64 gigabyte_page
    mov qword [PDPT + 8], 0x87
    mov dword [HIGH_FREE], 0x1234
    mov rax, 0x40000000
    EXPECT [rax + HIGH_FREE], 0x1234
    EXPECT_BITS [PDPT + 8], 0x60, 0x20
    mov [rax + HIGH_FREE], eax
    EXPECT_BITS [PDPT + 8], 0x60, 0x60
    mov qword [PDPT + 8], 0x2087    ; reserved bit
    FLUSH
    mov rax, 0x40000000
    FAULTS xPF, 9, mov ebx, [rax]
    PASS

TEST64 large_bit_in_pml4_is_reserved
    mov qword [PML4 + 8], PDPT | 0x87
    mov rax, 0x8000000000
    FAULTS xPF, 9, mov ebx, [rax]
    PASS

TEST64 rights_accumulate_over_levels
    mov rax, 0x8000000000 + HIGH_FREE
    mov qword [PML4 + 8], PDPT | 5  ; read-only
    FAULTS xPF, 3, mov [rax], ebx
    mov ebx, [rax]
    mov qword [PML4 + 8], PDPT | 3  ; supervisor
    FLUSH
    mov rcx, 0x8000000000 + HIGH_FREE
    USER
    USER_FAULTS xPF, 5, mov ebx, [rcx]
    mov rax, 0x8000000000000003 + PDPT + 4
    mov [PML4 + 8], rax             ; no execution
    FLUSH
    CATCH .caught
    jmp rcx
.caught:
    EXPECT [v_vec], xPF
    EXPECT [v_err], 0x11
    PASS

TEST64 nx_and_nxe
    mov byte [FREE], 0xc3
    bts qword [PTE(FREE)], 63
    invlpg [FREE]
    CATCH .caught
    call FREE
    FAIL
.caught:
    EXPECT [v_vec], xPF
    EXPECT [v_err], 0x11
    mov ecx, 0xc0000080
    rdmsr
    and eax, ~0x800
    wrmsr
    FLUSH
    FAULTS xPF, 9, mov eax, [FREE]
    PASS

TEST64 nx_for_user_code
    mov byte [FREE], 0xc3
    bts qword [PTE(FREE)], 63
    FLUSH
    USER
    mov rax, .caught
    mov [v_catch], rax
    mov rax, [v_ksp]
    mov [v_catch_sp], rax
    jmp FREE
.caught:
    EXPECT [v_vec], xPF
    EXPECT [v_err], 0x15
    PASS

TEST64 write_protect_and_wp
    mov qword [PTE(FREE)], FREE | 5
    FAULTS xPF, 3, mov [FREE], eax
    mov rax, cr0
    and eax, ~0x10000
    mov cr0, rax
    mov dword [FREE], 0x55
    EXPECT [FREE], 0x55
    PASS

TEST64 accessed_bits_on_every_level
    and qword [PML4], ~0x20
    and qword [PDPT], ~0x20
    and qword [PD], ~0x20
    mov qword [PTE(FREE)], FREE | 7
    FLUSH
    mov eax, [FREE]
    EXPECT_BITS [PML4], 0x60, 0x20
    EXPECT_BITS [PDPT], 0x60, 0x20
    EXPECT_BITS [PD], 0x60, 0x20
    EXPECT_BITS [PTE(FREE)], 0x60, 0x20
    PASS

TEST64 dirty_bit_on_first_write_only_when_allowed
    mov qword [PTE(FREE)], FREE | 0x27
    FLUSH
    mov eax, [FREE]
    EXPECT_BITS [PTE(FREE)], 0x40, 0
    cmp dword [FREE], 0
    EXPECT_BITS [PTE(FREE)], 0x40, 0
    add dword [FREE], 0
    EXPECT_BITS [PTE(FREE)], 0x40, 0x40
    PASS

TEST64 dirty_bit_by_stack_string_and_vector_stores
    mov qword [PTE(FREE)], FREE | 7
    mov qword [PTE(FREE + 0x1000)], (FREE + 0x1000) | 7
    mov qword [PTE(FREE + 0x2000)], (FREE + 0x2000) | 7
    mov edi, FREE
    mov ecx, 4
    rep stosb
    EXPECT_BITS [PTE(FREE)], 0x40, 0x40
    movups [FREE + 0x1000], xmm0
    EXPECT_BITS [PTE(FREE + 0x1000)], 0x40, 0x40
    mov esp, FREE + 0x3000
    push rax
    mov esp, STACK0
    EXPECT_BITS [PTE(FREE + 0x2000)], 0x40, 0x40
    PASS

TEST64 stale_dirty_clear_needs_flush
    mov dword [FREE], 1
    and qword [PTE(FREE)], ~0x40
    invlpg [FREE]
    mov dword [FREE], 2
    EXPECT_BITS [PTE(FREE)], 0x40, 0x40
    PASS

TEST64 invlpg_and_cr3_flush
    mov dword [HIGH_FREE], 2
    mov dword [HIGH_FREE + 0x1000], 3
    mov dword [FREE], 1
    mov qword [PTE(FREE)], HIGH_FREE | 7
    invlpg [FREE + 0xfff]
    EXPECT [FREE], 2
    mov qword [PTE(FREE)], (HIGH_FREE + 0x1000) | 7
    FLUSH
    EXPECT [FREE], 3
    PASS

TEST64 invlpg_of_large_page
    mov dword [0x200000], 1
    mov dword [0x400000], 2
    mov dword [0x210000], 3
    mov dword [0x410000], 4
    EXPECT [0x210000], 3
    mov qword [PD + 8], 0x400087
    invlpg [0x200000]               ; any address of the page
    EXPECT [0x210000], 4
    EXPECT [0x200000], 2
    PASS

TEST64 invlpg_noncanonical_is_nothing
    mov rax, 0x800000000000
    invlpg [rax]
    PASS

TEST64 global_pages_survive_cr3_but_not_pge
    mov rax, cr4
    or eax, 0x80
    mov cr4, rax
    mov dword [HIGH_FREE], 2
    mov qword [PTE(FREE)], FREE | 0x107
    invlpg [FREE]
    mov dword [FREE], 1
    mov qword [PTE(FREE)], HIGH_FREE | 0x107
    mov rax, cr4
    and eax, ~0x80
    mov cr4, rax
    EXPECT [FREE], 2
    PASS

TEST64 global_page_is_dropped_by_invlpg
    mov rax, cr4
    or eax, 0x80
    mov cr4, rax
    mov qword [PTE(FREE)], FREE | 0x107
    invlpg [FREE]
    mov dword [FREE], 1
    mov dword [HIGH_FREE], 2
    mov qword [PTE(FREE)], HIGH_FREE | 0x107
    invlpg [FREE]
    EXPECT [FREE], 2
    PASS

TEST64 pcid_enable_rules
    mov rax, cr3
    or eax, 5
    mov cr3, rax
    mov rax, cr4
    or eax, 1 << 17
    FAULTS xGP, 0, mov cr4, rax     ; CR3[11:0] is not 0
    mov ecx, PML4
    mov cr3, rcx
    mov cr4, rax
    mov rax, cr4
    EXPECT_BITS eax, 1 << 17, 1 << 17
    PASS

TEST64 pcid_keeps_address_spaces_apart
    mov rax, cr4
    or eax, 1 << 17
    mov cr4, rax
    mov dword [HIGH_FREE], 2
    mov dword [FREE], 1
    mov qword [PTE(FREE)], HIGH_FREE | 7
    mov rax, PML4 | 1               ; PCID 1 knows nothing yet
    mov cr3, rax
    EXPECT [FREE], 2
    mov rax, cr3
    EXPECTQ rax, PML4 | 1
    PASS

TEST64 pcid_noflush_bit_is_not_kept
    mov rax, cr3
    bts rax, 63
    FAULTS xGP, 0, mov cr3, rax     ; reserved without PCIDE
    mov rax, cr4
    or eax, 1 << 17
    mov cr4, rax
    mov rax, 0x8000000000000000 + PML4 + 3
    mov cr3, rax
    mov rax, cr3
    EXPECTQ rax, PML4 + 3
    PASS

TEST64 invpcid_types
    mov rax, cr4
    or eax, 1 << 17
    mov cr4, rax
    mov dword [HIGH_FREE], 2
    mov qword [v_user], 0           ; PCID 0
    mov qword [v_user + 8], FREE
    xor ebx, ebx
.type:
    mov qword [PTE(FREE)], FREE | 7
    mov rax, PML4
    mov cr3, rax
    mov dword [FREE], 1
    mov qword [PTE(FREE)], HIGH_FREE | 7
    invpcid rbx, [v_user]
    EXPECT [FREE], 2
    inc ebx
    cmp ebx, 4
    jb .type
    FAULTS xGP, 0, invpcid rbx, [v_user]
    xor ebx, ebx
    mov qword [v_user], 0x1000      ; reserved bits
    FAULTS xGP, 0, invpcid rbx, [v_user]
    mov qword [v_user], 0
    mov rax, 0x800000000000
    mov [v_user + 8], rax           ; not canonical
    FAULTS xGP, 0, invpcid rbx, [v_user]
    mov ebx, 1                      ; which only type 0 looks at
    invpcid rbx, [v_user]
    PASS

TEST64 cr3_reserved_bits_are_gp
    mov rax, 0x10000000000000 + PML4
    FAULTS xGP, 0, mov cr3, rax
    PASS

TEST64 smep
    SUPERVISOR_LOW
    mov byte [FREE], 0xc3
    mov rax, cr4
    or eax, 1 << 20
    mov cr4, rax
    CATCH .caught
    call FREE
    FAIL
.caught:
    EXPECT [v_vec], xPF
    EXPECT [v_err], 0x11
    EXPECTQ [v_cr2], FREE
    and qword [PTE(FREE)], ~4
    invlpg [FREE]
    call FREE
    PASS

TEST64 smep_is_not_for_ring_3
    mov rax, cr4
    ; the handlers must be supervisor pages; ring 3 runs in FREE
    SUPERVISOR_LOW
    or qword [PTE(STACK3 - 8)], 4
    mov dword [FREE], 0x900b0f90    ; NOP, UD2
    or eax, 1 << 20
    mov cr4, rax
    mov qword [v_catch], .caught
    mov [v_catch_sp], rsp
    push UDATA
    push STACK3
    push 2
    push UCODE64
    push FREE
    iretq
.caught:
    EXPECT [v_vec], xUD
    EXPECT [v_ip], FREE + 1
    PASS

TEST64 smap_and_ac
    SUPERVISOR_LOW
    mov rax, cr4
    or eax, 1 << 21
    mov cr4, rax
    FAULTS xPF, 1, mov eax, [FREE]
    FAULTS xPF, 3, mov [FREE], eax
    FAULTS xPF, 3, lock xadd [FREE], eax
    stac
    mov eax, [FREE]
    mov [FREE], eax
    clac
    FAULTS xPF, 1, movups xmm0, [FREE]
    mov esi, FREE
    mov edi, 0x3000
    mov ecx, 4
    FAULTS xPF, 1, rep movsb
    PASS

TEST64 interrupts_do_not_clear_ac
    SETVECTOR 0x31, KCODE64, .handler, 0x8e
    stac
    int 0x31
    EXPECT_BITS ecx, 1 << 18, 1 << 18 ; without SMAP it stays
    SUPERVISOR_LOW
    mov rax, cr4
    or eax, 1 << 21
    mov cr4, rax
    stac
    int 0x31
    EXPECT_BITS ecx, 1 << 18, 1 << 18 ; AC is not among the flags an interrupt clears
    EXPECT_BITS ebx, 1 << 18, 1 << 18
    PASS
.handler:
    pushfq
    pop rcx
    mov ebx, [rsp + 16]
    iretq

; Descriptor tables are read with supervisor rights whatever AC says [SDM 3A 4.6.1].
TEST64 smap_implicit_access_ignores_ac
    SUPERVISOR_LOW
    mov rax, cr4
    or eax, 1 << 21
    mov cr4, rax
    stac
    mov esi, gdt
    mov edi, FREE
    mov ecx, (GDT_LIMIT + 1) / 4
    rep movsd
    mov dword [v_user], KDATA       ; the present segments are good for the handler
    mov qword [gdt_pointer + 2], FREE
    lgdt [gdt_pointer]
    mov al, 2
    out 0xec, al
    mov es, [v_user]                ; #PF; its delivery reads the GDT: double fault, triple fault
    FAIL

TEST64 clac_and_stac_need_cpl_0
    USER
    USER_FAULTS xUD, NO_ERROR, clac
    USER
    USER_FAULTS xUD, NO_ERROR, stac
    PASS

TEST64 access_across_pages_faults_without_effect
    mov qword [PTE(FREE + 0x1000)], 0
    mov qword [FREE + 0xff8], 0x11223344
    mov rax, -1
    FAULTS xPF, 2, mov [FREE + 0xff9], rax
    EXPECTQ [v_cr2], FREE + 0x1000
    EXPECTQ [FREE + 0xff8], 0x11223344
    FAULTS xPF, 2, movups [FREE + 0xff1], xmm0
    FAULTS xPF, 0, movups xmm0, [FREE + 0xff1]
    FAULTS xPF, 2, add [FREE + 0xffd], eax
    EXPECTQ [FREE + 0xff8], 0x11223344
    PASS

TEST64 first_page_fault_comes_first
    mov qword [PTE(FREE)], 0
    mov qword [PTE(FREE + 0x1000)], 0
    FAULTS xPF, 0, mov rax, [FREE + 0xffc]
    EXPECTQ [v_cr2], FREE + 0xffc
    PASS

TEST64 second_page_of_different_rights
    mov qword [PTE(FREE + 0x1000)], (FREE + 0x1000) | 5
    FAULTS xPF, 3, mov [FREE + 0xffc], rax
    EXPECTQ [v_cr2], FREE + 0x1000
    mov rax, [FREE + 0xffc]
    PASS

TEST64 enter_faults_before_it_changes_anything
    mov rbp, 0x1234
    mov qword [PTE(FREE)], 0
    USER
    mov esp, FREE + 0x1000
    USER_FAULTS xPF, 6, enter 16, 0
    EXPECTQ [v_sp], FREE + 0x1000
    EXPECTQ rbp, 0x1234
    PASS

TEST64 call_faults_before_it_jumps
    mov qword [PTE(FREE)], 0
    USER
    mov esp, FREE + 0x1000
    USER_FAULTS xPF, 6, call .nowhere
    EXPECTQ [v_sp], FREE + 0x1000
    PASS
.nowhere:
    FAIL

TEST64 page_table_write_is_seen_after_invlpg_through_itself
    ; the page table maps itself at FREE
    mov qword [PTE(FREE)], PT | 7
    invlpg [FREE]
    mov dword [HIGH_FREE], 0x99
    mov rbx, FREE + (FREE + 0x1000) / 512
    mov qword [rbx], HIGH_FREE | 7
    invlpg [FREE + 0x1000]
    EXPECT [FREE + 0x1000], 0x99
    PASS

TEST64 page_tables_in_rom_are_read
    ; entries of ROM are counting bytes: present, with reserved high bits
    mov qword [PD + 16], ROM | 7
    FLUSH
    CATCH .caught
    mov eax, [0x401000]             ; entry 1: 0f0e0d0c0b0a0908, not present
    FAIL
.caught:
    EXPECT [v_vec], xPF
    EXPECT [v_err], 0
    PASS

TEST64 clflush_translates_like_a_read
    mov qword [PTE(FREE)], FREE | 5
    clflush [FREE]
    mov qword [PTE(FREE)], 0
    invlpg [FREE]
    FAULTS xPF, 0, clflush [FREE]
    prefetcht0 [FREE]               ; never faults
    PASS

TEST64 nop_with_memory_operand_does_not_access
    mov qword [PTE(FREE)], 0
    nop dword [FREE]
    lea rax, [FREE]
    EXPECT eax, FREE
    PASS

TEST64 masked_store_faults_only_for_enabled_lanes
    mov rax, cr4
    or eax, 1 << 18
    mov cr4, rax
    xor ecx, ecx
    mov eax, 7
    xor edx, edx
    xsetbv
    mov qword [PTE(FREE + 0x1000)], 0
    vpcmpeqd ymm0, ymm0, ymm0
    vpxor xmm1, xmm1, xmm1
    vpcmpeqd xmm1, xmm1, xmm1       ; low four lanes
    vmaskmovps [FREE + 0xff0], ymm1, ymm0
    EXPECT [FREE + 0xffc], 0xffffffff
    FAULTS xPF, 2, vmaskmovps [FREE + 0xff0], ymm0, ymm0
    EXPECTQ [v_cr2], FREE + 0x1000
    PASS
