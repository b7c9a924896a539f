; Hardware task switches. [SDM 3A 7], [APM 2 12]
%include "guest.inc"

; A 32-bit TSS at the label: CR3 stays as it is, ring 0 flat segments.
%macro MAKE_TSS 3                   ; address, EIP, ESP
    mov dword [%1 + 28], PD
    mov dword [%1 + 32], %2
    mov dword [%1 + 36], 2
    mov dword [%1 + 56], %3
    mov dword [%1 + 72], KDATA      ; ES
    mov dword [%1 + 76], KCODE32
    mov dword [%1 + 80], KDATA
    mov dword [%1 + 84], KDATA
    mov dword [%1 + 88], KDATA
    mov dword [%1 + 92], KDATA
    mov dword [%1 + 96], 0          ; LDT
    mov word [%1 + 100], 0
%endmacro
; After this MAKE_TSS the other general registers are 0.

TEST32 jmp_to_tss_switches_and_frees_the_old_task
    MAKE_TSS tss2, .task, STACK1
    mov dword [tss2 + 40], 0x11111111
    mov eax, 0x22222222
    jmp dword TSS2:0
.back:
    FAIL
.task:
    EXPECT eax, 0x11111111
    EXPECT esp, STACK1
    EXPECT [tss32 + 40], 0x22222222
    EXPECT [tss32 + 32], .back
    EXPECT [tss32 + 56], STACK0
    EXPECTW [tss32 + 76], KCODE32
    EXPECTB [gdt + TSS + 5], 0x89
    EXPECTB [gdt + TSS2 + 5], 0x8b
    EXPECTW [tss2], 0               ; no back link
    str ax
    EXPECTW ax, TSS2
    pushfd
    pop eax
    EXPECT_BITS eax, 0x4000, 0
    mov eax, cr0
    EXPECT_BITS eax, 8, 8           ; TS
    PASS

TEST32 call_to_tss_nests_and_iret_returns
    MAKE_TSS tss2, .task, STACK1
    mov eax, 0x22222222
    call dword TSS2:0
.back:
    EXPECT eax, 0x22222222
    EXPECT esp, STACK0
    str ax
    EXPECTW ax, TSS
    EXPECTB [gdt + TSS + 5], 0x8b
    EXPECTB [gdt + TSS2 + 5], 0x89
    EXPECT [tss2 + 32], .again      ; the task goes on behind its IRET
    EXPECT_BITS [tss2 + 36], 0x4000, 0 ; whose NT is not kept
    PASS
.task:
    EXPECTB [gdt + TSS + 5], 0x8b   ; both busy
    EXPECTB [gdt + TSS2 + 5], 0x8b
    EXPECTW [tss2], TSS
    pushfd
    pop eax
    EXPECT_BITS eax, 0x4000, 0x4000
    iretd
.again:
    FAIL

TEST32 call_to_busy_tss_is_gp
    FAULTS xGP, TSS, call dword TSS:0
    FAULTS xGP, TSS, jmp dword TSS:0
    PASS

TEST32 tss_not_present_is_np
    and byte [gdt + TSS2 + 5], 0x7f
    FAULTS xNP, TSS2, jmp dword TSS2:0
    PASS

TEST32 tss_limit_too_small_is_ts
    mov byte [gdt + TSS2], 0x66
    FAULTS xTS, TSS2, jmp dword TSS2:0
    PASS

TEST32 tss_dpl_is_checked
    USER
    USER_FAULTS xGP, TSS2, call dword TSS2:0
    USER
    USER_FAULTS xGP, TSS2, jmp dword (TSS2 + 3):0
    PASS

TEST32 task_gate_in_gdt
    MAKE_TSS tss2, .task, STACK1
    SETGATE SPARE + 3, TSS2, 0, 0xe5, 0
    USER
    call dword (SPARE + 3):0
    KERNEL
    PASS
.task:
    EXPECTW [tss2], TSS
    iretd

TEST32 task_gate_in_idt
    MAKE_TSS tss2, .task, STACK1
    SETVECTOR 0x31, TSS2, 0, 0x85
    int 0x31
.back:
    EXPECT esp, STACK0
    PASS
.task:
    EXPECT [tss32 + 32], .back
    EXPECT esp, STACK1
    iretd

TEST32 exception_through_task_gate_pushes_error_code
    MAKE_TSS tss2, .task, STACK1
    SETVECTOR xGP, TSS2, 0, 0x85
    mov ax, GDT_LIMIT + 1
.at:
    mov es, ax
    PASS
.task:
    EXPECT esp, STACK1 - 4
    EXPECT [esp], GDT_LIMIT + 1
    EXPECT [tss32 + 32], .at        ; a fault: the old task repeats the instruction
    EXPECT_BITS [tss32 + 36], 0x10000, 0x10000 ; with RF
    mov dword [tss32 + 40], KDATA
    add esp, 4
    iretd

TEST32 int_to_task_gate_with_bad_selector
    SETVECTOR 0x31, KDATA, 0, 0x85
    FAULTS xGP, KDATA, int 0x31
    SETVECTOR 0x31, TSS, 0, 0x85    ; busy
    FAULTS xGP, TSS, int 0x31
    PASS

TEST32 iret_with_nt_and_bad_back_link_is_ts
    mov word [tss32], TSS2          ; not busy
    pushfd
    or dword [esp], 0x4000
    popfd
    FAULTS xTS, TSS2, iretd
    mov word [tss32], KDATA
    pushfd
    or dword [esp], 0x4000
    popfd
    FAULTS xTS, KDATA, iretd
    PASS

; The new task's segments are loaded in the new task: the fault happens there [SDM 3A 7.3].
TEST32 bad_segment_in_new_task_is_ts
    MAKE_TSS tss2, .task, STACK1
    mov dword [tss2 + 84], 0xffe0
    mov dword [v_catch], .caught
    mov dword [v_catch_sp], STACK2
    jmp dword TSS2:0
.task:
    FAIL
.caught:
    EXPECT [v_vec], xTS
    EXPECT [v_err], 0xffe0
    EXPECT [v_ip], .task
    str ax
    EXPECTW ax, TSS2
    PASS

TEST32 not_present_segment_in_new_task_is_np
    MAKE_TSS tss2, .task, STACK1
    SETDESC SPARE, 0, 0xfffff, 0x13, 0xc
    mov dword [tss2 + 92], SPARE
    mov dword [v_catch], .caught
    mov dword [v_catch_sp], STACK2
    jmp dword TSS2:0
.task:
    FAIL
.caught:
    EXPECT [v_vec], xNP
    EXPECT [v_err], SPARE
    EXPECT [v_ip], .task
    PASS

TEST32 task_loads_its_ldt
    MAKE_TSS tss2, .task, STACK1
    mov dword [ldt + 8], DESCRIPTOR(FREE, 0xff, 0x93, 4) & 0xffffffff
    mov dword [ldt + 12], DESCRIPTOR(FREE, 0xff, 0x93, 4) >> 32
    mov dword [FREE], 0x77777777
    mov dword [tss2 + 96], LDT
    mov dword [tss2 + 88], 0xc      ; FS of the LDT
    jmp dword TSS2:0
.task:
    sldt ax
    EXPECTW ax, LDT
    EXPECT [fs:0], 0x77777777
    PASS

; Nothing but a task can handle this: the stack segment has not been loaded yet.
TEST32 bad_ldt_in_new_task_is_ts
    MAKE_TSS tss2, .task, STACK1
    mov dword [tss2 + 96], KDATA
    MAKE_TSS tss3, .handler, STACK2
    SETVECTOR xTS, TSS3, 0, 0x85
    jmp dword TSS2:0
.task:
    FAIL
.handler:
    EXPECT [esp], KDATA
    EXPECTW [tss3], TSS2
    EXPECT [tss2 + 32], .task
    PASS

TEST32 t_bit_raises_debug_trap_in_new_task
    MAKE_TSS tss2, .task, STACK1
    mov word [tss2 + 100], 1
    mov dword [v_catch], .caught
    mov dword [v_catch_sp], STACK2
    jmp dword TSS2:0
.task:
    FAIL
.caught:
    EXPECT [v_vec], xDB
    EXPECT [v_ip], .task
    EXPECT_BITS [v_dr6], 0x8000, 0x8000
    PASS

TEST32 task_switch_clears_local_breakpoints
    MAKE_TSS tss2, .task, STACK1
    mov eax, 0x403                  ; L0, G0
    mov dr7, eax
    mov eax, 0x12345
    mov dr0, eax
    jmp dword TSS2:0
.task:
    mov eax, dr7
    EXPECT eax, 0x402
    PASS

TEST32 tss_16_switch
    ; a 286 TSS: 44 bytes
    SETDESC SPARE, tss_286, 0x2b, 0x81, 0
    mov word [tss_286 + 14], .task
    mov word [tss_286 + 16], 2      ; FLAGS
    mov word [tss_286 + 18], 0x1234 ; AX
    mov word [tss_286 + 26], STACK1 ; SP
    mov word [tss_286 + 34], KDATA  ; ES CS SS DS LDT
    mov word [tss_286 + 36], KCODE32
    mov word [tss_286 + 38], KDATA
    mov word [tss_286 + 40], KDATA
    mov word [tss_286 + 42], 0
    mov ax, UDATA
    mov fs, ax
    call dword SPARE:0
    EXPECT esp, STACK0
    PASS
.task:
    EXPECTW ax, 0x1234
    EXPECTW sp, STACK1
    EXPECTW [tss_286], TSS
    mov ax, fs                      ; there is no FS in it: null
    EXPECTW ax, 0
    iretd
tss_286 equ 0x5100

TEST32P task_switch_loads_cr3
    MAKE_TSS tss2, .task, STACK1
    ; the second page directory maps FREE elsewhere
    mov esi, PD
    mov edi, 0x25000
    mov ecx, 1024
    rep movsd
    mov esi, PT
    mov edi, 0x26000
    mov ecx, 1024
    rep movsd
    mov dword [0x25000], 0x26007
    mov dword [0x26000 + FREE / 1024], (FREE + 0x1000) | 7
    mov dword [FREE], 1
    mov dword [FREE + 0x1000], 2
    mov dword [tss2 + 28], 0x25000
    mov dword [tss32 + 28], PD      ; a switch away does not write CR3
    call dword TSS2:0
    EXPECT [FREE], 1
    PASS
.task:
    EXPECT [FREE], 2
    iretd

TEST32 ltr_marks_busy_and_checks
    mov ax, TSS2
    ltr ax
    EXPECTB [gdt + TSS2 + 5], 0x8b
    mov ax, TSS2
    FAULTS xGP, TSS2, ltr ax        ; busy now
    mov ax, KDATA
    FAULTS xGP, KDATA, ltr ax
    xor eax, eax
    FAULTS xGP, 0, ltr ax
    and byte [gdt + TSS3 + 5], 0x7f
    mov ax, TSS3
    FAULTS xNP, TSS3, ltr ax
    PASS

TEST32 double_fault_through_task_gate
    MAKE_TSS tss2, .task, STACK1
    SETVECTOR xDF, TSS2, 0, 0x85
    SETVECTOR xGP, KCODE32, 0, 0x0e
    mov ax, GDT_LIMIT + 1
    mov es, ax
    FAIL
.task:
    EXPECT [esp], 0
    EXPECTW [tss2], TSS
    PASS
