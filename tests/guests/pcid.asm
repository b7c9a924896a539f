; What must be forgotten of an address space, and when: process-context identifiers, INVPCID, INVLPG, global pages
; [SDM 3A 4.10]. A processor may forget more than it must, so what is kept cannot be tested; what is flushed can:
; each test brings translations of a page into use, changes the page tables, flushes, and looks whether the change
; is seen by data accesses and fetches of the kernel and of ring 3.
%include "guest.inc"

    CODE 64
%define PTE(address) (PT + ((address) >> 12) * 8)
CR4_PGE         equ 1 << 7
CR4_PCIDE       equ 1 << 17
KEEP            equ 1 << 63         ; MOV CR3: keep the entries of the new PCID
PTE_G           equ 0x100
; A second address space, like the first but for the page at FREE.
PML4_B          equ 0x28000
PDPT_B          equ 0x29000
PD_B            equ 0x2a000
PT_B            equ 0x2b000
%define PTE_B(address) (PT_B + ((address) >> 12) * 8)
OLD             equ FREE
NEW             equ HIGH_FREE

; The pages hold MOV EBX, number; RET: the number can be read and fetched.
%macro PAGES 0
    mov rax, 0xc300000001bb
    mov [OLD], rax
    mov rax, 0xc300000002bb
    mov [NEW], rax
%endmacro
%macro CR4_SET 1
    mov rax, cr4
    or eax, %1
    mov cr4, rax
%endmacro
%macro CR4_CLEAR 1
    mov rax, cr4
    and eax, ~(%1)
    mov cr4, rax
%endmacro
%macro CR3_IS 1
    mov rax, %1
    mov cr3, rax
%endmacro
; All four kinds of access find the page with this number.
%define SEES SEES_AT __?LINE?__,
%macro SEES_AT 2
    mov edi, FREE
    mov esi, %2
    mov ecx, %1
    call sees
%endmacro
; edi: page, esi: number, ecx: line
sees:
    mov r8d, [rdi + 1]
    call rdi
    mov r9d, ebx
    USER
    mov r10d, [rdi + 1]
    call rdi
    mov r11d, ebx
    KERNEL
    mov ebx, ecx
    mov eax, r8d
    cmp eax, esi
    jne fail_64
    mov eax, r9d
    cmp eax, esi
    jne fail_64
    mov eax, r10d
    cmp eax, esi
    jne fail_64
    mov eax, r11d
    cmp eax, esi
    jne fail_64
    ret
; INVPCID type, PCID, address
%macro INVPCID 3
    mov qword [v_user], %2
    mov qword [v_user + 8], %3
    mov eax, %1
    invpcid rax, [v_user]
%endmacro
%macro TABLES_B 0
    mov esi, PML4
    mov edi, PML4_B
    mov ecx, 512
    rep movsq
    mov esi, PDPT
    mov ecx, 512
    rep movsq
    mov esi, PD
    mov ecx, 512
    rep movsq
    mov esi, PT
    mov ecx, 512
    rep movsq
    mov qword [PML4_B], PDPT_B | 7
    mov qword [PDPT_B], PD_B | 7
    mov qword [PD_B], PT_B | 7
    mov qword [PTE_B(FREE)], NEW | 7
%endmacro

TEST64 cr3_without_keep_flushes_its_pcid
    PAGES
    CR4_SET CR4_PCIDE
    CR3_IS PML4 | 1
    SEES 1
    CR3_IS KEEP + PML4 + 2
    SEES 1
    mov qword [PTE(FREE)], NEW | 7
    CR3_IS PML4 | 1
    SEES 2
    CR3_IS PML4 | 2
    SEES 2
    PASS

TEST64 cr3_without_keep_flushes_the_running_pcid
    PAGES
    CR4_SET CR4_PCIDE
    CR3_IS PML4 | 3
    SEES 1
    mov qword [PTE(FREE)], NEW | 7
    CR3_IS PML4 | 3
    SEES 2
    PASS

TEST64 cr3_without_pcids_flushes
    PAGES
    SEES 1
    mov qword [PTE(FREE)], NEW | 7
    CR3_IS PML4
    SEES 2
    CR4_SET CR4_PGE
    mov qword [PTE(FREE)], OLD | 7
    CR3_IS PML4 | 0x18              ; PWT and PCD are no PCID
    SEES 1
    mov qword [PTE(FREE)], NEW | 7
    CR3_IS PML4
    SEES 2
    PASS

TEST64 pcids_do_not_see_each_other
    PAGES
    TABLES_B
    CR4_SET CR4_PCIDE
    mov r12d, 3
.again:
    CR3_IS PML4 | 1
    SEES 1
    CR3_IS PML4_B | 2
    SEES 2
    CR3_IS KEEP + PML4 + 1
    SEES 1
    CR3_IS KEEP + PML4_B + 2
    SEES 2
    dec r12d
    jnz .again
    PASS

TEST64 many_pcids_do_not_see_each_other
    PAGES
    TABLES_B
    CR4_SET CR4_PCIDE
    mov r12d, 3
    mov r14, KEEP
.round:
    mov r13d, 100
.pcid:
    lea rax, [r13 + PML4]
    or rax, r14
    mov cr3, rax
    SEES 1
    lea rax, [r13 + PML4_B + 0x800]
    or rax, r14
    mov cr3, rax
    SEES 2
    sub r13d, 7
    jns .pcid
    dec r12d
    jnz .round
    PASS

; A PCID's entries that were made room for must not come back with it.
TEST64 flushed_pcid_stays_flushed_among_many
    PAGES
    CR4_SET CR4_PCIDE
    mov r13d, 30
.fill:
    lea rax, [r13 + PML4]
    mov cr3, rax
    SEES 1
    dec r13d
    jns .fill
    mov qword [PTE(FREE)], NEW | 7
    INVPCID 3, 0, 0
    mov r13d, 30
    mov r14, KEEP
.look:
    lea rax, [r13 + PML4]
    or rax, r14
    mov cr3, rax
    SEES 2
    dec r13d
    jns .look
    PASS

TEST64 invlpg_flushes_the_running_pcid
    PAGES
    CR4_SET CR4_PCIDE
    CR3_IS PML4 | 1
    SEES 1
    mov qword [PTE(FREE)], NEW | 7
    invlpg [FREE + 0x123]
    SEES 2
    CR3_IS PML4 | 2
    SEES 2
    CR3_IS KEEP + PML4 + 1
    SEES 2
    PASS

TEST64 invlpg_flushes_globals_of_all_pcids
    PAGES
    CR4_SET CR4_PCIDE | CR4_PGE
    mov qword [PTE(FREE)], OLD | PTE_G | 7
    invlpg [FREE]
    CR3_IS PML4 | 1
    SEES 1
    CR3_IS PML4 | 2
    SEES 1
    CR3_IS PML4 | 3
    mov qword [PTE(FREE)], NEW | PTE_G | 7
    invlpg [FREE]
    SEES 2
    CR3_IS KEEP + PML4 + 1
    SEES 2
    CR3_IS KEEP + PML4 + 2
    SEES 2
    PASS

TEST64 invpcid_address_of_another_pcid
    PAGES
    CR4_SET CR4_PCIDE
    CR3_IS PML4 | 1
    SEES 1
    CR3_IS PML4 | 2
    mov qword [PTE(FREE)], NEW | 7
    INVPCID 0, 1, FREE + 0x10
    CR3_IS KEEP + PML4 + 1
    SEES 2
    PASS

TEST64 invpcid_address_of_the_running_pcid
    PAGES
    CR4_SET CR4_PCIDE
    CR3_IS PML4 | 5
    SEES 1
    mov qword [PTE(FREE)], NEW | 7
    INVPCID 0, 5, FREE
    SEES 2
    PASS

TEST64 invpcid_context_of_another_pcid
    PAGES
    CR4_SET CR4_PCIDE
    CR3_IS PML4 | 0xfff
    SEES 1
    CR3_IS PML4 | 2
    mov qword [PTE(FREE)], NEW | 7
    INVPCID 1, 0xfff, 0
    CR3_IS KEEP + PML4 + 0xfff
    SEES 2
    PASS

TEST64 invpcid_context_of_the_running_pcid
    PAGES
    CR4_SET CR4_PCIDE
    CR3_IS PML4 | 2
    SEES 1
    mov qword [PTE(FREE)], NEW | 7
    INVPCID 1, 2, 0
    SEES 2
    PASS

TEST64 invpcid_all_contexts
    PAGES
    CR4_SET CR4_PCIDE
    CR3_IS PML4 | 1
    SEES 1
    CR3_IS PML4 | 2
    SEES 1
    CR3_IS PML4 | 3
    SEES 1
    mov qword [PTE(FREE)], NEW | 7
    INVPCID 3, 0, 0
    SEES 2
    CR3_IS KEEP + PML4 + 1
    SEES 2
    CR3_IS KEEP + PML4 + 2
    SEES 2
    PASS

TEST64 invpcid_all_with_globals
    PAGES
    CR4_SET CR4_PCIDE | CR4_PGE
    mov qword [PTE(FREE)], OLD | PTE_G | 7
    invlpg [FREE]
    CR3_IS PML4 | 1
    SEES 1
    CR3_IS PML4 | 2
    SEES 1
    mov qword [PTE(FREE)], NEW | PTE_G | 7
    INVPCID 2, 0, 0
    SEES 2
    CR3_IS KEEP + PML4 + 1
    SEES 2
    PASS

; Both flags are about all PCIDs [SDM 3A 4.10.4.1].
TEST64 changing_pge_flushes_all_pcids
    PAGES
    CR4_SET CR4_PCIDE
    CR3_IS PML4 | 1
    SEES 1
    CR3_IS PML4 | 2
    mov qword [PTE(FREE)], NEW | PTE_G | 7
    CR4_SET CR4_PGE
    CR3_IS KEEP + PML4 + 1
    SEES 2
    CR3_IS KEEP + PML4 + 2
    mov qword [PTE(FREE)], OLD | PTE_G | 7
    CR4_CLEAR CR4_PGE
    SEES 1
    CR3_IS KEEP + PML4 + 1
    SEES 1
    PASS

TEST64 clearing_pcide_flushes_all_pcids
    PAGES
    CR4_SET CR4_PCIDE | CR4_PGE
    mov qword [PTE(FREE)], OLD | PTE_G | 7
    invlpg [FREE]
    CR3_IS PML4 | 1
    SEES 1
    CR3_IS KEEP + PML4
    SEES 1
    mov qword [PTE(FREE)], NEW | PTE_G | 7
    CR4_CLEAR CR4_PCIDE
    SEES 2
    CR4_SET CR4_PCIDE
    CR3_IS KEEP + PML4 + 1
    SEES 2
    PASS

; CR3[11:0] may be what it likes when PCIDE is cleared; it is no PCID any more.
TEST64 clearing_pcide_makes_pcid_0_current
    PAGES
    CR4_SET CR4_PCIDE
    CR3_IS PML4 | 1
    SEES 1
    CR4_CLEAR CR4_PCIDE
    SEES 1
    mov qword [PTE(FREE)], NEW | 7
    CR3_IS PML4
    SEES 2
    CR4_SET CR4_PCIDE
    mov qword [PTE(FREE)], OLD | 7
    INVPCID 1, 0, 0
    SEES 1
    PASS

; A page that becomes global or ceases to be, as every other page.
TEST64 invlpg_when_the_global_bit_changes
    PAGES
    CR4_SET CR4_PCIDE | CR4_PGE
    CR3_IS PML4 | 1
    SEES 1
    mov qword [PTE(FREE)], NEW | PTE_G | 7
    invlpg [FREE]
    SEES 2
    mov qword [PTE(FREE)], OLD | 7
    invlpg [FREE]
    SEES 1
    PASS

; FREE by a 2 MiB page: the image and all else below 2 MiB stays where it is, FREE + NEW - OLD is beside it.
%macro LARGE_PAGES 0
    ; 0x200000 in both spaces; its first 2 pages hold number 1, those of the frame at 0x400000 number 2
    mov rax, 0xc300000001bb
    mov [0x200000], rax
    mov [0x201000], rax
    mov [0x2ff000], rax
    mov rax, 0xc300000002bb
    mov [0x400000], rax
    mov [0x401000], rax
    mov [0x4ff000], rax
%endmacro
%define LARGE_SEES LARGE_SEES_AT __?LINE?__,
%macro LARGE_SEES_AT 2
    mov esi, %2
    mov ecx, %1
    mov edi, 0x200000
    call sees
    mov edi, 0x201000
    call sees
    mov edi, 0x2ff000
    call sees
%endmacro

TEST64 invlpg_of_a_large_page
    LARGE_PAGES
    CR4_SET CR4_PCIDE | CR4_PGE
    CR3_IS PML4 | 1
    LARGE_SEES 1
    mov qword [PD + 8], 0x400087
    invlpg [0x3ff000]
    LARGE_SEES 2
    mov qword [PD + 8], 0x200187
    invlpg [0x200000]
    LARGE_SEES 1
    CR3_IS PML4 | 2
    LARGE_SEES 1
    mov qword [PD + 8], 0x400187
    invlpg [0x212345]
    LARGE_SEES 2
    CR3_IS KEEP + PML4 + 1
    LARGE_SEES 2
    PASS

TEST64 invpcid_address_in_a_large_page
    LARGE_PAGES
    CR4_SET CR4_PCIDE
    CR3_IS PML4 | 1
    LARGE_SEES 1
    CR3_IS PML4 | 2
    mov qword [PD + 8], 0x400087
    INVPCID 0, 1, 0x2fe000
    CR3_IS KEEP + PML4 + 1
    LARGE_SEES 2
    PASS

; 1 GiB at the linear addresses from 1 GiB on; the second frame has page 0 of its first 2 MiB elsewhere.
TEST64 invlpg_of_a_huge_page
    LARGE_PAGES
    mov qword [PDPT + 8], 0x87
    mov r12, 0x40200001
    mov r13, 0x403ff001
    mov dword [0x3ff001], 7
    mov eax, [r12]
    add eax, [r13]
    EXPECT eax, 8
    mov qword [PDPT + 8], 0x40000087
    invlpg [0x7ffff000]
    mov qword [PDPT + 8], PD_B | 7  ; the second page: other tables
    mov qword [PD_B + 8], 0x400087
    mov dword [0x5ff001], 20
    invlpg [0x40000000]
    mov eax, [r12]
    add eax, [r13]
    EXPECT eax, 22
    PASS

; A 4 KiB page and the large page it is split from.
TEST64 splitting_a_large_page
    LARGE_PAGES
    CR4_SET CR4_PCIDE
    CR3_IS PML4 | 1
    LARGE_SEES 1
    mov edi, PT_B
    mov eax, 0x400007
    mov ecx, 512
.fill:
    mov [rdi], rax
    add edi, 8
    add eax, 0x1000
    loop .fill
    mov qword [PD + 8], PT_B | 7
    invlpg [0x234000]
    LARGE_SEES 2
    mov qword [PD + 8], 0x200087
    INVPCID 1, 1, 0
    LARGE_SEES 1
    PASS

TEST64 dirty_bit_is_set_again_after_each_flush
    CR4_SET CR4_PCIDE
    CR3_IS PML4 | 1
%macro DIRTIES 1
    mov byte [FREE], 1
    EXPECT_BITS [PTE(FREE)], 0x60, 0x60
    and qword [PTE(FREE)], ~0x60
    %1
    USER
    mov eax, [FREE]
    KERNEL
    EXPECT_BITS [PTE(FREE)], 0x60, 0x20
    USER
    inc byte [FREE]
    KERNEL
    EXPECT_BITS [PTE(FREE)], 0x60, 0x60
    and qword [PTE(FREE)], ~0x60
    %1
    mov eax, [FREE]
    EXPECT_BITS [PTE(FREE)], 0x60, 0x20
%endmacro
%macro BY_INVLPG 0
    invlpg [FREE]
%endmacro
%macro BY_ADDRESS 0
    INVPCID 0, 1, FREE
%endmacro
%macro BY_CONTEXT 0
    INVPCID 1, 1, 0
%endmacro
%macro BY_ALL 0
    INVPCID 2, 0, 0
%endmacro
%macro BY_CR3 0
    CR3_IS PML4 | 1
%endmacro
    DIRTIES BY_INVLPG
    DIRTIES BY_ADDRESS
    DIRTIES BY_CONTEXT
    DIRTIES BY_ALL
    DIRTIES BY_CR3
    PASS

; Rights that were taken away are gone after a flush, in the kernel and in ring 3.
TEST64 rights_are_taken_away
    CR4_SET CR4_PCIDE
    CR3_IS PML4 | 1
    mov dword [FREE], 0xc3
    USER
    mov byte [FREE + 1], 1
    KERNEL
    CR3_IS PML4 | 2
    and qword [PTE(FREE)], ~2
    INVPCID 0, 1, FREE
    CR3_IS KEEP + PML4 + 1
    FAULTS xPF, 3, mov byte [FREE + 1], 2
    USER
    USER_FAULTS xPF, 7, mov byte [FREE + 1], 2
    mov rax, PTE(FREE)
    bts qword [rax], 63
    invlpg [FREE]
    CATCH .caught
    call FREE
    FAIL
.caught:
    EXPECT [v_vec], xPF
    EXPECT [v_err], 0x11
    PASS

; Rights that were added need no flush: what was remembered makes no fault that the tables do not make.
TEST64 rights_are_added_without_flush
    mov qword [PTE(FREE)], FREE | 1
    CR3_IS PML4
    mov eax, [FREE]
    FAULTS xPF, 3, mov [FREE], eax
    mov qword [PTE(FREE)], FREE | 7
    ; A fault may still come once; it must not come for ever, and INVLPG ends it for sure.
    invlpg [FREE]
    mov [FREE], eax
    USER
    mov [FREE], eax
    KERNEL
    PASS

; The same linear page by all four kinds of rights in turn: SMAP makes the kernel's access depend on AC.
TEST64 smap_applies_to_remembered_pages
    mov rdi, PT
    mov ecx, 0x40
.supervisor:
    and qword [rdi], ~4
    add rdi, 8
    loop .supervisor
    CR3_IS PML4
    CR4_SET CR4_PCIDE
    CR3_IS PML4 | 1
    mov rax, cr4
    or eax, 1 << 21
    stac
    mov cr4, rax
    mov dword [FREE], 5
    EXPECT [FREE], 5
    clac
    FAULTS xPF, 1, mov eax, [FREE]
    FAULTS xPF, 3, mov [FREE], eax
    CR3_IS PML4 | 2
    stac
    EXPECT [FREE], 5
    CR3_IS KEEP + PML4 + 1
    EXPECT [FREE], 5
    clac
    FAULTS xPF, 1, mov eax, [FREE]
    mov rax, cr4
    and eax, ~(1 << 21)
    mov cr4, rax
    EXPECT [FREE], 5
    PASS
