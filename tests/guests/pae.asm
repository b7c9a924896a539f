; PAE paging. [SDM 3A 4.4], [APM 2 5.2.3]
%include "guest.inc"
%define PTE(page) (PT + (page) / 512)

TESTPAE nx_forbids_execution
    mov dword [PTE(FREE) + 4], 0x80000000
    mov byte [FREE], 0xc3
    mov eax, [FREE]
    CATCH .caught
    call FREE
    FAIL
.caught:
    EXPECT [v_vec], xPF
    EXPECT [v_err], 0x11
    EXPECT [v_cr2], FREE
    EXPECT [v_ip], FREE
    PASS

TESTPAE nx_of_the_directory_covers_its_pages
    or dword [PD + 8 + 4], 0x80000000
    mov byte [HIGH_FREE], 0xc3
    mov eax, cr3
    mov cr3, eax
    CATCH .caught
    call HIGH_FREE
    FAIL
.caught:
    EXPECT [v_vec], xPF
    EXPECT [v_err], 0x11
    PASS

TESTPAE fetch_of_not_present_page_has_id_bit_with_nx
    mov dword [PTE(FREE)], 0
    CATCH .caught
    jmp FREE
.caught:
    EXPECT [v_vec], xPF
    EXPECT [v_err], 0x10
    PASS

TESTPAE nx_bit_is_reserved_without_nxe
    mov ecx, 0xc0000080
    rdmsr
    and eax, ~0x800
    wrmsr
    mov dword [PTE(FREE) + 4], 0x80000000
    mov eax, cr3
    mov cr3, eax
    FAULTS xPF, 9, mov eax, [FREE]
    FAULTS xPF, 0xb, mov [FREE], eax
    PASS

TESTPAE reserved_high_bits_are_rsvd
    mov dword [PTE(FREE) + 4], 0x40000000 ; bit 62: above every physical address
    FAULTS xPF, 9, mov eax, [FREE]
    USER
    USER_FAULTS xPF, 0xd, mov eax, [FREE]
    PASS

TESTPAE large_page_reserved_low_bits
    mov dword [PD + 8], 0x200087 | 0x2000
    mov eax, cr3
    mov cr3, eax
    FAULTS xPF, 9, mov eax, [HIGH_FREE]
    PASS

TESTPAE pdptes_are_loaded_with_cr3_only
    mov dword [0x25000], 0
    mov dword [PDPT + 8], PD | 1    ; 0x40000000: not before CR3 is loaded
    FAULTS xPF, 0, mov eax, [0x40000000 + HIGH_FREE]
    mov eax, cr3
    mov cr3, eax
    mov dword [HIGH_FREE], 0x4711
    EXPECT [0x40000000 + HIGH_FREE], 0x4711
    mov dword [PDPT + 8], 0         ; and it stays loaded
    invlpg [0x40000000 + HIGH_FREE]
    EXPECT [0x40000000 + HIGH_FREE], 0x4711
    PASS

TESTPAE pdpte_reserved_bits_are_gp_at_load
    mov eax, cr3
    mov dword [PDPT + 8], PD | 3
    FAULTS xGP, 0, mov cr3, eax
    mov dword [PDPT + 8], 2         ; not present: anything goes
    mov cr3, eax
    PASS

TESTPAE pdpt_is_32_byte_aligned
    mov esi, PDPT
    mov edi, 0x25020
    mov ecx, 8
    rep movsd
    mov dword [0x25028], PD | 1
    mov eax, 0x25020
    mov cr3, eax
    mov dword [HIGH_FREE], 0x4711
    EXPECT [0x40000000 + HIGH_FREE], 0x4711
    PASS

TESTPAE toggling_pge_reloads_pdptes
    mov dword [PDPT + 8], PD | 1
    mov eax, cr4
    xor eax, 0x80
    mov cr4, eax
    mov dword [HIGH_FREE], 0x4711
    EXPECT [0x40000000 + HIGH_FREE], 0x4711
    PASS

TESTPAE accessed_and_dirty_at_each_level
    mov eax, [HIGH_FREE]
    EXPECT_BITS [PD + 8], 0x60, 0x20
    mov [HIGH_FREE], eax
    EXPECT_BITS [PD + 8], 0x60, 0x60
    mov eax, [FREE]
    EXPECT_BITS [PTE(FREE)], 0x60, 0x20
    lock inc dword [FREE]
    EXPECT_BITS [PTE(FREE)], 0x60, 0x60
    PASS

TESTPAE user_supervisor_and_write_errors
    mov dword [PTE(FREE)], FREE | 3
    USER
    USER_FAULTS xPF, 5, mov eax, [FREE]
    mov dword [PTE(FREE)], FREE | 5
    invlpg [FREE]
    USER
    USER_FAULTS xPF, 7, mov [FREE], eax
    PASS

TESTPAE memory_above_4g_is_addressable
    mov dword [PTE(FREE) + 4], 1    ; physical 4 GiB + FREE: nothing is there
    mov eax, cr3
    mov cr3, eax
    EXPECT [FREE], 0xffffffff
    mov dword [FREE], 5
    EXPECT [FREE], 0xffffffff
    PASS

TESTPAE clearing_pae_with_paging_changes_mode
    ; the same PD can be read as a 32-bit directory: its entry 0 maps by the table PT, entry 2 is PD[1]'s low half
    mov dword [PDPT], PD | 1
    mov esi, cr4
    and esi, ~0x20
    mov edi, 0x27000                ; 32-bit tables: one 4-MiB page
    mov dword [edi], 0x87
    or esi, 0x10
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    mov cr3, edi
    mov cr4, esi
    or eax, 0x80000000
    mov cr0, eax
    mov dword [HIGH_FREE], 0x77
    EXPECT [HIGH_FREE], 0x77
    FAULTS xPF, 0, mov eax, [0x400000]
    PASS

TESTPAE cmpxchg8b_across_pages_faults_without_effect
    mov dword [PTE(FREE + 0x1000)], 0
    mov dword [FREE + 0xffc], 0x1111
    FAULTS xPF, 2, lock cmpxchg8b [FREE + 0xffc]
    EXPECT [v_cr2], FREE + 0x1000
    EXPECT [FREE + 0xffc], 0x1111
    PASS

TESTPAE smep_and_nx_give_the_same_code
    mov edi, PT
    mov ecx, 0x40
.page:
    and dword [edi], ~4
    add edi, 8
    loop .page
    mov eax, cr4
    or eax, 1 << 20
    mov cr4, eax
    CATCH .caught
    call FREE
    FAIL
.caught:
    EXPECT [v_vec], xPF
    EXPECT [v_err], 0x11
    PASS
