; Two processors: start-up, interrupts between them, atomic operations, changing code and tables. [SDM 3A 9.4, 11]
; Processor 0 runs the test.
%include "guest.inc"
%include "second_cpu.inc"

TEST64 init_and_sipi_start_the_second, WITH_APIC
    START_AP .ap
    WAIT_FOR ap_flag, 1
    EXPECT [ap_flag2], 1            ; its APIC ID
    PASS
.ap:
    mov eax, [APIC_ID]
    shr eax, 24
    mov [ap_flag2], eax
    mov dword [ap_flag], 1
    hlt

TEST64 sipi_gives_real_mode_at_its_page, WITH_APIC
    ; CS = vector << 8, IP = 0: store them
    mov dword [TRAMPOLINE], 0xa32ec88c ; MOV AX, CS; CS MOV [0x0500], AX; HLT
    mov dword [TRAMPOLINE + 4], 0x00f40500
    mov dword [APIC_SVR], 0x1ff
    SEND_IPI 1, 0x4500
    SEND_IPI 1, 0x4600 | (TRAMPOLINE >> 12)
.wait:
    cmp word [TRAMPOLINE + 0x500], 0
    je .wait
    EXPECTW [TRAMPOLINE + 0x500], TRAMPOLINE >> 4
    PASS

TEST64 bootstrap_flag_is_on_the_first_only, WITH_APIC
    mov ecx, 0x1b
    rdmsr
    EXPECT_BITS eax, 0x100, 0x100
    START_AP .ap
    WAIT_FOR ap_flag, 1
    EXPECT_BITS [ap_flag2], 0x100, 0
    PASS
.ap:
    mov ecx, 0x1b
    rdmsr
    mov [ap_flag2], eax
    mov dword [ap_flag], 1
    hlt

TEST64 cpuid_tells_the_apic_id, WITH_APIC
    START_AP .ap
    WAIT_FOR ap_flag, 1
    EXPECT [ap_flag2], 1
    EXPECT [shared], 1
    PASS
.ap:
    mov eax, 1
    cpuid
    shr ebx, 24
    mov [ap_flag2], ebx
    mov eax, 0xb
    xor ecx, ecx
    cpuid
    mov [shared], edx
    mov dword [ap_flag], 1
    hlt

%macro ATOMIC_TEST 2+               ; rounds, code adding 1 to [shared] (RAX, RBX, RDX free)
    START_AP %%ap
    WAIT_FOR ap_flag, 1
    mov dword [ap_flag], 2
    mov ecx, %1
%%again:
    %2
    dec ecx
    jnz %%again
    WAIT_FOR ap_flag2, 1
    EXPECT [shared], 2 * %1
    PASS
%%ap:
    mov dword [ap_flag], 1
    WAIT_FOR ap_flag, 2
    mov ecx, %1
%%ap_again:
    %2
    dec ecx
    jnz %%ap_again
    mov dword [ap_flag2], 1
    hlt
%endmacro

TEST64 lock_inc_from_both, WITH_APIC
    ATOMIC_TEST 20000, lock inc dword [shared]

TEST64 lock_xadd_from_both, WITH_APIC
%macro ADD_BY_XADD 0
    mov eax, 1
    lock xadd [shared], eax
%endmacro
    ATOMIC_TEST 20000, ADD_BY_XADD

TEST64 lock_cmpxchg_from_both, WITH_APIC
%macro ADD_BY_CMPXCHG 0
%%retry:
    mov eax, [shared]
    lea ebx, [rax + 1]
    lock cmpxchg [shared], ebx
    jne %%retry
%endmacro
    ATOMIC_TEST 10000, ADD_BY_CMPXCHG

TEST64 xchg_lock_from_both, WITH_APIC
%macro ADD_UNDER_LOCK 0
%%retry:
    mov eax, 1
    xchg [shared + 64], eax         ; implicit LOCK
    test eax, eax
    pause
    jnz %%retry
    inc dword [shared]              ; not atomic by itself
    mov dword [shared + 64], 0
%endmacro
    ATOMIC_TEST 3000, ADD_UNDER_LOCK

TEST64 split_lock_from_both, WITH_APIC
%macro ADD_ACROSS_LINES 0
    lock inc dword [shared + 62]
%endmacro
    START_AP .ap
    WAIT_FOR ap_flag, 1
    mov ecx, 2000
.again:
    ADD_ACROSS_LINES
    dec ecx
    jnz .again
    WAIT_FOR ap_flag2, 1
    EXPECT [shared + 62], 4000
    PASS
.ap:
    mov dword [ap_flag], 1
    mov ecx, 2000
.ap_again:
    ADD_ACROSS_LINES
    dec ecx
    jnz .ap_again
    mov dword [ap_flag2], 1
    hlt

TEST64 split_lock_across_pages_from_both, WITH_APIC
    START_AP .ap
    WAIT_FOR ap_flag, 1
    mov ecx, 1000
.again:
    lock inc dword [FREE + 0xffe]
    dec ecx
    jnz .again
    WAIT_FOR ap_flag2, 1
    EXPECT [FREE + 0xffe], 2000
    PASS
.ap:
    mov dword [ap_flag], 1
    mov ecx, 1000
.ap_again:
    lock inc dword [FREE + 0xffe]
    dec ecx
    jnz .ap_again
    mov dword [ap_flag2], 1
    hlt

TEST64 cmpxchg16b_from_both, WITH_APIC
%macro ADD_BY_CX16 0
    mov rax, [shared]
    mov rdx, [shared + 8]
%%retry:
    mov [rsp - 8], rcx
    lea rbx, [rax + 1]
    lea rcx, [rdx + 1]
    lock cmpxchg16b [shared]
    mov rcx, [rsp - 8]
    jne %%retry
%endmacro
    ATOMIC_TEST 5000, ADD_BY_CX16

TEST64 message_passing_keeps_order, WITH_APIC
    START_AP .ap
    mov ecx, 1
.again:
    mov [shared], ecx
    mov [shared + 64], ecx          ; stores are seen in order
    inc ecx
    cmp ecx, 20000
    jb .again
    mov dword [ap_flag2], 1
    WAIT_FOR ap_flag, 1
    EXPECT [shared + 128], 0
    PASS
.ap:
    mov eax, [shared + 64]
    mov ebx, [shared]
    cmp ebx, eax
    jae .fine
    inc dword [shared + 128]
.fine:
    cmp dword [ap_flag2], 1
    jne .ap
    mov dword [ap_flag], 1
    hlt

TEST64 ipi_wakes_a_halted_processor, WITH_APIC
    SETVECTOR 0x31, KCODE64, .handler, 0x8e
    START_AP .ap
    WAIT_FOR ap_flag, 1
    SEND_IPI 1, 0x4031
    WAIT_FOR ap_flag, 2
    PASS
.handler:
    inc dword [ap_flag2]
    mov dword [APIC_EOI], 0
    iretq
.ap:
    mov dword [APIC_SVR], 0x1ff
    mov dword [ap_flag], 1
.halt:
    sti
    hlt
    cmp dword [ap_flag2], 1
    jne .halt
    mov dword [ap_flag], 2
    hlt

TEST64 nmi_by_ipi, WITH_APIC
    SETVECTOR xNMI, KCODE64, .handler, 0x8e
    START_AP .ap
    WAIT_FOR ap_flag, 1
    SEND_IPI 1, 0x4400
    WAIT_FOR ap_flag, 2
    PASS
.handler:
    mov dword [ap_flag], 2
    iretq
.ap:
    mov dword [ap_flag], 1
.halt:
    hlt
    jmp .halt

TEST64 self_ipi_arrives, WITH_APIC
    mov dword [v_resume + 4], 2
    mov dword [APIC_SVR], 0x1ff
    sti
    mov dword [APIC_ICR], 0x44021   ; shorthand: self
.wait:
    cmp dword [v_count], 1
    jne .wait
    EXPECT [v_vec], 0x21
    PASS

TEST64 init_stops_a_running_processor, WITH_APIC
    START_AP .ap
    WAIT_FOR ap_flag, 1
    SEND_IPI 1, 0x4500              ; INIT: it waits for a SIPI again
    mov qword [ap_entry], .again
    SEND_IPI 1, 0x4600 | (TRAMPOLINE >> 12)
    WAIT_FOR ap_flag, 2
    PASS
.ap:
    mov dword [ap_flag], 1
    jmp $
.again:
    mov dword [ap_flag], 2
    hlt

TEST64 code_patched_by_the_other_processor, WITH_APIC
    mov dword [FREE], 0xc301b0      ; MOV AL, 1; RET
    START_AP .ap
    WAIT_FOR ap_flag, 1             ; it has run the code
    mov byte [FREE + 1], 2
    mov dword [ap_flag], 2
    WAIT_FOR ap_flag2, 2
    PASS
.ap:
    mov ebx, FREE
    call rbx
    mov dword [ap_flag], 1
    WAIT_FOR ap_flag, 2
    xor eax, eax
    cpuid                           ; serialises
    mov ebx, FREE
    call rbx
    movzx eax, al
    mov [ap_flag2], eax
    hlt

TEST64 running_code_patched_by_the_other_processor, WITH_APIC
    mov word [FREE], 0xfeeb         ; JMP $
    mov byte [FREE + 2], 0xc3
    START_AP .ap
    WAIT_FOR ap_flag, 1
    mov word [FREE], 0x9090
    WAIT_FOR ap_flag, 2
    PASS
.ap:
    mov dword [ap_flag], 1
    mov ebx, FREE
    call rbx
    mov dword [ap_flag], 2
    hlt

TEST64 tlb_shootdown, WITH_APIC
    SETVECTOR 0x31, KCODE64, .handler, 0x8e
    mov dword [FREE], 1
    mov dword [HIGH_FREE], 2
    START_AP .ap
    WAIT_FOR ap_flag, 1
    mov qword [PT + FREE / 512], HIGH_FREE | 7
    SEND_IPI 1, 0x4031
    WAIT_FOR ap_flag, 2
    EXPECT [ap_flag2], 2
    PASS
.handler:
    invlpg [FREE]
    mov dword [APIC_EOI], 0
    mov dword [shared + 64], 1
    iretq
.ap:
    mov dword [APIC_SVR], 0x1ff
    mov eax, [FREE]
    sti
    mov dword [ap_flag], 1
    WAIT_FOR shared + 64, 1
    mov eax, [FREE]
    mov [ap_flag2], eax
    mov dword [ap_flag], 2
    hlt

; Processor 0 counts in the available bits of an entry while processor 1 has the MMU set accessed and dirty in it:
; neither may lose the other's change.
TEST64 accessed_and_dirty_are_set_atomically, WITH_APIC
    START_AP .ap
    WAIT_FOR ap_flag, 1
    mov ecx, 5000
    mov rbx, 1 << 52
.again:
    lock add qword [PT + FREE / 512], rbx ; available bits 52-58, wraps into 59 and so on: masked below
    lock and byte [PT + FREE / 512 + 7], 0x07
    dec ecx
    jnz .again
    mov dword [ap_flag2], 1
    WAIT_FOR ap_flag, 2
    mov rax, [PT + FREE / 512]
    shr rax, 52
    EXPECT eax, 5000 % 128
    PASS
.ap:
    mov dword [ap_flag], 1
.loop:
    lock and byte [PT + FREE / 512], 0x9f
    invlpg [FREE]
    mov dword [FREE], 1
    cmp dword [ap_flag2], 1
    jne .loop
    mov dword [ap_flag], 2
    hlt

TEST64 broadcast_to_all_but_self, WITH_APIC
    SETVECTOR 0x31, KCODE64, .handler, 0x8e
    START_AP .ap
    WAIT_FOR ap_flag, 1
    mov dword [APIC_ICR], 0xc4031
    WAIT_FOR ap_flag, 2
    EXPECT [v_count], 0
    PASS
.handler:
    mov dword [APIC_EOI], 0
    mov dword [ap_flag], 2
    iretq
.ap:
    mov dword [APIC_SVR], 0x1ff
    mov dword [ap_flag], 1
.halt:
    sti
    hlt
    jmp .halt

TEST64 x2apic_mode, WITH_APIC
    mov ecx, 0x1b
    rdmsr
    or eax, 0x400
    wrmsr
    mov ecx, 0x802
    rdmsr
    EXPECT eax, 0
    mov ecx, 0x80f
    mov eax, 0x1ff
    xor edx, edx
    wrmsr
    mov dword [v_resume + 4], 2
    sti
    mov ecx, 0x83f                  ; SELF IPI
    mov eax, 0x21
    wrmsr
    nop
    nop
.wait:
    cmp dword [v_count], 1
    jne .wait
    mov ecx, 0x80b
    mov eax, 1
    FAULTS xGP, 0, wrmsr            ; EOI takes only 0
    EXPECT [APIC_ID], 0xffffffff    ; the page is no longer its
    PASS

TEST64 apic_disabled_hides_page_and_cpuid_bit, WITH_APIC
    mov ecx, 0x1b
    rdmsr
    and eax, ~0x800
    wrmsr
    mov eax, 1
    cpuid
    EXPECT_BITS edx, 1 << 9, 0
    EXPECT [APIC_ID], 0xffffffff
    PASS

TEST64 cr8_is_the_task_priority, WITH_APIC
    mov dword [APIC + 0x80], 0x50
    mov rax, cr8
    EXPECTQ rax, 5
    mov eax, 3
    mov cr8, rax
    EXPECT [APIC + 0x80], 0x30
    PASS
