; 32-bit paging. [SDM 3A 4.3, 4.6, 4.7], [APM 2 5.2]
%include "guest.inc"
%define PTE(page) (PT + (page) / 1024)

TEST32P not_present_read
    mov dword [PTE(FREE)], 0
    FAULTS xPF, 0, mov eax, [FREE + 0x123]
    EXPECT [v_cr2], FREE + 0x123
    PASS

TEST32P not_present_write
    mov dword [PTE(FREE)], 0
    FAULTS xPF, 2, mov [FREE + 8], eax
    EXPECT [v_cr2], FREE + 8
    PASS

TEST32P not_present_directory_entry
    FAULTS xPF, 0, mov eax, [0x1000000]
    EXPECT [v_cr2], 0x1000000
    PASS

TEST32P not_present_fetch
    mov dword [PTE(FREE)], 0
    CATCH .caught
    jmp FREE
.caught:
    EXPECT [v_vec], xPF
    EXPECT [v_err], 0               ; without NX or SMEP the I/D bit is not set
    EXPECT [v_cr2], FREE
    EXPECT [v_ip], FREE
    PASS

TEST32P write_to_read_only_with_wp
    mov dword [PTE(FREE)], FREE | 5
    mov eax, [FREE]
    FAULTS xPF, 3, mov [FREE], eax
    FAULTS xPF, 3, lock inc dword [FREE]
    PASS

TEST32P write_to_read_only_without_wp
    mov dword [PTE(FREE)], FREE | 5
    mov eax, cr0
    and eax, ~0x10000
    mov cr0, eax
    mov dword [FREE], 0x1234
    EXPECT [FREE], 0x1234
    USER
    USER_FAULTS xPF, 7, mov dword [FREE], eax
    PASS

TEST32P setting_wp_takes_effect_at_once
    mov dword [PTE(FREE)], FREE | 5
    mov eax, cr0
    and eax, ~0x10000
    mov cr0, eax
    mov dword [FREE], 0x1234
    or eax, 0x10000
    mov cr0, eax
    FAULTS xPF, 3, mov dword [FREE], eax
    PASS

TEST32P user_access_to_supervisor_page
    mov dword [PTE(FREE)], FREE | 3
    USER
    USER_FAULTS xPF, 5, mov eax, [FREE]
    USER
    USER_FAULTS xPF, 7, mov [FREE], eax
    mov eax, [FREE]
    PASS

TEST32P user_write_to_read_only
    mov dword [PTE(FREE)], FREE | 5
    USER
    USER_FAULTS xPF, 7, mov [FREE], eax
    PASS

TEST32P rights_are_those_of_both_levels
    and dword [PD + 4], ~4          ; 4-MiB page: supervisor
    mov eax, cr3
    mov cr3, eax
    USER
    USER_FAULTS xPF, 5, mov eax, [0x400000]
    or dword [PD], 7
    and dword [PD], ~2              ; table not writable, entry is
    mov eax, cr3
    mov cr3, eax
    ; the stack and the variables are in it: no WP while the handler runs
    mov eax, cr0
    and eax, ~0x10000
    mov cr0, eax
    mov dword [FREE], eax
    PASS

TEST32P accessed_and_dirty_bits
    mov dword [PTE(FREE)], FREE | 7
    mov dword [PTE(FREE + 0x1000)], (FREE + 0x1000) | 7
    and dword [PD], ~0x20
    mov eax, cr3
    mov cr3, eax
    mov eax, [FREE]
    EXPECT_BITS [PTE(FREE)], 0x60, 0x20
    EXPECT_BITS [PD], 0x20, 0x20
    mov [FREE], eax                 ; the cached read must not hide this
    EXPECT_BITS [PTE(FREE)], 0x60, 0x60
    mov [FREE + 0x1000], eax
    EXPECT_BITS [PTE(FREE + 0x1000)], 0x60, 0x60
    PASS

TEST32P dirty_bit_of_large_page
    and dword [PD + 4], ~0x60
    mov eax, cr3
    mov cr3, eax
    mov eax, [0x400000]
    EXPECT_BITS [PD + 4], 0x60, 0x20
    mov [0x7ffffc], eax
    EXPECT_BITS [PD + 4], 0x60, 0x60
    PASS

TEST32P faulting_write_sets_no_dirty_bit
    mov dword [PTE(FREE)], FREE | 5
    FAULTS xPF, 3, mov [FREE], eax
    EXPECT_BITS [PTE(FREE)], 0x40, 0
    PASS

TEST32P page_tables_translate
    mov dword [PTE(FREE)], HIGH_FREE | 7
    mov eax, cr3
    mov cr3, eax
    mov dword [FREE + 0x10], 0xabcdef01
    EXPECT [HIGH_FREE + 0x10], 0xabcdef01
    PASS

TEST32P invlpg_drops_the_translation
    mov dword [FREE], 1
    mov dword [HIGH_FREE], 2
    EXPECT [FREE], 1
    mov dword [PTE(FREE)], HIGH_FREE | 7
    invlpg [FREE + 0x800]
    EXPECT [FREE], 2
    PASS

TEST32P cr3_reload_drops_translations
    mov dword [FREE], 1
    mov dword [HIGH_FREE], 2
    EXPECT [FREE], 1
    mov dword [PTE(FREE)], HIGH_FREE | 7
    mov eax, cr3
    mov cr3, eax
    EXPECT [FREE], 2
    PASS

TEST32P large_page_needs_pse
    mov eax, cr4
    and al, ~0x10
    mov cr4, eax
    ; now PD[1] is a table at 0x400000
    mov dword [PT + 0x300 * 4], 0x400007
    mov dword [PD], PT | 7
    mov eax, [PD + 4]
    EXPECT_BITS eax, 0x80, 0x80
    CATCH .caught
    mov eax, [0x400000]
    FAIL
.caught:
    EXPECT [v_vec], xPF
    EXPECT [v_err], 0
    PASS

TEST32P pse36_reaches_above_4g
    mov dword [PD + 4], 0x2087      ; bit 13: physical bit 32
    mov eax, cr3
    mov cr3, eax
    EXPECT [0x400000], 0xffffffff   ; nothing is there
    mov dword [PD + 4], 0x800087
    mov eax, cr3
    mov cr3, eax
    mov dword [0x400004], 0x1357
    EXPECT [0x800004], 0x1357
    PASS

TEST32P pse_reserved_bit_21
    mov dword [PD + 4], 0x600087
    mov eax, cr3
    mov cr3, eax
    FAULTS xPF, 9, mov eax, [0x400000]
    PASS

TEST32P access_across_pages_faults_on_the_second
    mov dword [FREE + 0xffc], 0x11223344
    mov dword [PTE(FREE + 0x1000)], 0
    FAULTS xPF, 2, mov dword [FREE + 0xffe], 0xaabbccdd
    EXPECT [v_cr2], FREE + 0x1000
    EXPECT [FREE + 0xffc], 0x11223344
    FAULTS xPF, 0, mov eax, [FREE + 0xffd]
    EXPECT [v_cr2], FREE + 0x1000
    PASS

TEST32P access_across_pages_of_different_places
    mov dword [PTE(FREE)], HIGH_FREE | 7
    mov dword [PTE(FREE + 0x1000)], (HIGH_FREE + 0x5000) | 7
    mov eax, cr3
    mov cr3, eax
    mov dword [FREE + 0xffe], 0xaabbccdd
    EXPECTW [HIGH_FREE + 0xffe], 0xccdd
    EXPECTW [HIGH_FREE + 0x5000], 0xaabb
    EXPECT [FREE + 0xffe], 0xaabbccdd
    lock add dword [FREE + 0xffe], 0x11
    EXPECT [FREE + 0xffe], 0xaabbccee
    PASS

TEST32P faulting_push_leaves_esp
    mov dword [PTE(FREE)], 0
    mov esp, FREE + 0x1000
    mov dword [v_catch], .caught
    mov dword [v_catch_sp], STACK0
    mov ebp, esp
    jmp .caught2
.caught:
    FAIL
.caught2:
    ; the handler needs a stack: fault from ring 3
    mov esp, STACK0
    USER
    mov esp, FREE + 0x1000
    mov dword [v_catch], .caught3
    mov dword [v_catch_sp], STACK0
    push eax
    FAIL
.caught3:
    EXPECT [v_vec], xPF
    EXPECT [v_err], 6
    EXPECT [v_sp], FREE + 0x1000
    EXPECT [v_cr2], FREE + 0xffc
    PASS

TEST32P faulting_pop_to_memory_leaves_esp
    mov dword [PTE(FREE)], FREE | 5
    push dword 1
    mov ecx, esp
    FAULTS xPF, 3, pop dword [FREE]
    EXPECT [v_sp], ecx
    PASS

TEST32P rep_movs_stops_at_the_fault
    mov dword [PTE(FREE + 0x1000)], 0
    mov esi, HIGH_FREE
    mov edi, FREE + 0xff0
    mov ecx, 32
    FAULTS xPF, 2, rep movsb
    EXPECT ecx, 16
    EXPECT edi, FREE + 0x1000
    EXPECT esi, HIGH_FREE + 16
    EXPECT [v_cr2], FREE + 0x1000
    mov dword [PTE(FREE + 0x1000)], (FREE + 0x1000) | 7
    rep movsb
    EXPECT ecx, 0
    PASS

TEST32P instruction_across_pages_faults_on_the_second
    mov dword [PTE(FREE + 0x1000)], 0
    mov byte [FREE + 0xffe], 0xb8   ; MOV EAX, imm32
    CATCH .caught
    jmp FREE + 0xffe
.caught:
    EXPECT [v_vec], xPF
    EXPECT [v_ip], FREE + 0xffe
    EXPECT [v_cr2], FREE + 0x1000
    EXPECT [v_err], 0
    PASS

TEST32P instruction_across_pages_executes
    mov dword [PTE(FREE)], HIGH_FREE | 7
    mov dword [PTE(FREE + 0x1000)], (HIGH_FREE + 0x5000) | 7
    mov dword [HIGH_FREE + 0xffc], 0x34b89090 ; NOP NOP MOV EAX, 0x78561234
    mov dword [HIGH_FREE + 0x5000], 0xc3785612
    call FREE + 0xffc
    EXPECT eax, 0x78561234
    PASS

TEST32P clearing_pge_flushes_global_pages
    mov eax, cr4
    or eax, 0x80
    mov cr4, eax
    mov dword [HIGH_FREE], 2
    mov dword [PTE(FREE)], FREE | 0x107
    invlpg [FREE]
    mov dword [FREE], 1
    mov dword [PTE(FREE)], HIGH_FREE | 0x107
    ; clearing PGE flushes everything
    mov eax, cr4
    and eax, ~0x80
    mov cr4, eax
    EXPECT [FREE], 2
    PASS

TEST32P smep_forbids_user_pages_to_supervisor
    ; the image itself must become supervisor first
    mov edi, PT
    mov ecx, 0x40
.page:
    and dword [edi], ~4
    add edi, 4
    loop .page
    mov byte [FREE], 0xc3
    mov eax, cr4
    or eax, 1 << 20
    mov cr4, eax
    CATCH .caught
    call FREE
    FAIL
.caught:
    EXPECT [v_vec], xPF
    EXPECT [v_err], 0x11
    EXPECT [v_cr2], FREE
    and dword [PTE(FREE)], ~4
    invlpg [FREE]
    call FREE
    PASS

TEST32P smap_forbids_user_data_to_supervisor
    mov edi, PT
    mov ecx, 0x40
.page:
    and dword [edi], ~4
    add edi, 4
    loop .page
    mov eax, cr4
    or eax, 1 << 21
    mov cr4, eax
    FAULTS xPF, 1, mov eax, [FREE]
    EXPECT [v_cr2], FREE
    FAULTS xPF, 3, mov [FREE], eax
    stac
    mov eax, [FREE]
    mov [FREE], eax
    clac
    FAULTS xPF, 1, mov eax, [FREE]
    PASS

TEST32P cr2_is_writable_and_kept
    mov eax, 0x12345678
    mov cr2, eax
    mov eax, cr2
    EXPECT eax, 0x12345678
    PASS

TEST32P kernel_stack_fault_in_delivery_is_double_fault
    mov dword [PTE(FREE)], 0
    mov dword [tss32 + 4], FREE + 0x1000
    ; #DF needs a good stack: a task gate
    mov dword [tss2 + 28], PD
    mov dword [tss2 + 32], .task
    mov dword [tss2 + 36], 2
    mov dword [tss2 + 56], STACK1
    mov dword [tss2 + 72], KDATA
    mov dword [tss2 + 76], KCODE32
    mov dword [tss2 + 80], KDATA
    mov dword [tss2 + 84], KDATA
    SETVECTOR xDF, TSS2, 0, 0x85
    mov dword [PTE(FREE - 0x1000)], 0
    USER
    xor ecx, ecx
    div ecx                         ; #DE, then #PF on the stack
    FAIL
.task:
    EXPECT [esp], 0
    mov eax, cr2
    EXPECT eax, FREE + 0xffc
    PASS

TEST32P page_fault_on_idt_is_reported_with_its_address
    mov esi, idt32
    mov edi, FREE
    mov ecx, 64 * 2
    rep movsd
    lidt [.idt]
    mov dword [PTE(FREE + 0x1000)], 0
    mov dword [PTE(FREE)], 0
    mov al, 2
    out 0xec, al
    invlpg [FREE]
    ud2                             ; nothing can be delivered any more
    FAIL
.idt:
    dw 64 * 8 - 1
    dd FREE

TEST32P leaving_paging_uses_physical_addresses
    mov dword [PTE(FREE)], HIGH_FREE | 7
    invlpg [FREE]
    mov dword [HIGH_FREE], 2
    EXPECT [FREE], 2
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    mov dword [FREE], 1
    EXPECT [FREE], 1
    or eax, 0x80000000
    mov cr0, eax
    EXPECT [FREE], 2
    PASS

; A page of 4 MiB goes as a whole, by whichever of its addresses.
TEST32P invlpg_of_a_4_mib_page
    mov dword [0x800000], 1
    mov dword [0xa00000], 2
    mov dword [0xbff000], 3
    mov dword [0x400000], 0x11
    mov dword [0x600000], 0x12
    mov dword [0x7ff000], 0x13
    mov dword [PD + 4], 0x800087
    invlpg [0x600000]
    EXPECT [0x400000], 1
    EXPECT [0x600000], 2
    EXPECT [0x7ff000], 3
    mov dword [PD + 4], 0x400087
    invlpg [0x400000]
    EXPECT [0x7ff000], 0x13
    EXPECT [0x600000], 0x12
    EXPECT [0x400000], 0x11
    PASS
