; Interrupts by every way a PC has, one line of output for each: "ok NAME", or "failed NAME" when what was to come did
; not come in time, or came too often. Ends with power off. Needs two processors.
%include "pvh.inc"

APIC_ISR        equ 0x100
PIC_VECTOR      equ 0x20
IO_APIC_VECTOR  equ 0x30
TIMER_VECTOR    equ 0x41
DEADLINE_VECTOR equ 0x42
SELF_VECTOR     equ 0x43                ; ended by the MSR
PING_VECTOR     equ 0x51                ; at processor 0
PONG_VECTOR     equ 0x52                ; at processor 1
LEVEL_VECTOR    equ 0x61
PATIENCE        equ 1 << 34             ; ticks
A_WHILE         equ 1 << 24

%macro ENTER 0
    push rax
    push rcx
    push rdx
%endmacro
%macro LEAVE 0
    pop rdx
    pop rcx
    pop rax
    iretq
%endmacro
; IO_APIC_ENTRY pin, low half
%macro IO_APIC_ENTRY 2
    mov edi, IO_APIC
    mov dword [rdi], 0x11 + 2 * %1
    mov dword [rdi + 0x10], 0
    mov dword [rdi], 0x10 + 2 * %1
    mov dword [rdi + 0x10], %2
%endmacro
; EXPECT name, counter, number: waits for at least that many.
%macro EXPECT 3
    mov esi, %%name
    mov edi, %2
    mov ebp, %3
    call expect_at_least
    jmp %%done
%%name: db %1, 0
%%done:
%endmacro
; EXACTLY name, counter, number: after a while more.
%macro EXACTLY 3
    mov esi, %%name
    mov edi, %2
    mov ebp, %3
    call expect_exactly
    jmp %%done
%%name: db %1, 0
%%done:
%endmacro

main:
    GATE 2, on_nmi
    GATE PIC_VECTOR, on_pic
    GATE PIC_VECTOR + 7, on_nothing
    GATE IO_APIC_VECTOR, on_io_apic
    GATE TIMER_VECTOR, on_timer
    GATE DEADLINE_VECTOR, on_deadline
    GATE SELF_VECTOR, on_self
    GATE PING_VECTOR, on_ping
    GATE PONG_VECTOR, on_pong
    GATE LEVEL_VECTOR, on_level
    mov eax, 1
    cpuid
    mov [features], ecx
    sti

    ; The 8254 through the 8259A pair, which is at LINT0.
    mov esi, pic_words
.pic:
    lodsw
    movzx edx, al
    mov al, ah
    out dx, al
    cmp esi, pic_words_end
    jb .pic
    mov dword [r15 + APIC_LVT_LINT0], 0x700
    call start_8254
    EXPECT "8254 by 8259A", pic_count, 5
    mov al, 0xff
    out 0x21, al
    mov dword [r15 + APIC_LVT_LINT0], 0x10000

    ; And through the I/O APIC.
    IO_APIC_ENTRY 2, IO_APIC_VECTOR
    EXPECT "8254 by I/O APIC", io_apic_count, 5
    IO_APIC_ENTRY 2, 0x10000

    ; The local APIC's timer.
    mov dword [r15 + APIC_TIMER_DIV], 0x0b
    mov dword [r15 + APIC_LVT_TIMER], TIMER_VECTOR
    mov dword [r15 + APIC_TIMER_INIT], 1000000
    EXPECT "one-shot", timer_count, 1
    EXACTLY "one-shot once", timer_count, 1
    EXACTLY "in service", in_service, 1
    mov dword [r15 + APIC_LVT_TIMER], TIMER_VECTOR | 1 << 17
    mov dword [r15 + APIC_TIMER_INIT], 10000000
    EXPECT "periodic", timer_count, 6
    mov dword [r15 + APIC_TIMER_INIT], 0
    ; One that wakes.
    mov dword [timer_count], 0
    mov dword [r15 + APIC_LVT_TIMER], TIMER_VECTOR
    cli
    mov dword [r15 + APIC_TIMER_INIT], 5000000
.sleep:
    sti
    hlt
    cli
    cmp dword [timer_count], 0
    je .sleep
    sti
    EXACTLY "wake-up", timer_count, 1

    test dword [features], 1 << 24
    jz .no_deadline
    mov dword [r15 + APIC_LVT_TIMER], DEADLINE_VECTOR | 2 << 17
    mfence
    call now
    add rax, 1 << 22
    mov [deadline], rax
    mov rdx, rax
    shr rdx, 32
    mov ecx, 0x6e0
    wrmsr
    EXPECT "deadline", deadline_count, 1
    EXACTLY "not before", early_count, 0
    EXACTLY "deadline once", deadline_count, 1
    mov dword [r15 + APIC_LVT_TIMER], 0x10000
.no_deadline:

    ; COM1's "transmitter is empty" as a level: sent again after each end, until it is taken back.
    IO_APIC_ENTRY 4, LEVEL_VECTOR | 1 << 15
    mov dx, COM1 + 1
    mov al, 2
    out dx, al
    EXPECT "level", level_count, 3
    EXACTLY "level ends", level_count, 3
    IO_APIC_ENTRY 4, 0x10000

    ; The HPET in the place of the 8254, which counts on and is not heard [HPET 2.3.5].
    mov edi, HPET
    mov eax, [rdi]
    test eax, 1 << 15
    jz .no_hpet
    cmp eax, -1
    je .no_hpet
    mov dword [rdi + 0x10], 0
    mov dword [rdi + 0x100], 4          ; timer 0: edge, once
    mov dword [rdi + 0xf0], 0
    mov dword [rdi + 0xf4], 0
    mov dword [rdi + 0x108], 20000000   ; time enough for the I/O APIC to be told
    mov dword [rdi + 0x10c], 0
    mov dword [io_apic_count], 0
    mov dword [rdi + 0x10], 3           ; counts, legacy replacement
    IO_APIC_ENTRY 2, IO_APIC_VECTOR
    EXPECT "HPET", io_apic_count, 1
    mov ebx, 1 << 27
    call wait_ticks
    EXACTLY "8254 silent", io_apic_count, 1
    mov edi, HPET
    mov dword [rdi + 0x10], 0
    EXPECT "8254 again", io_apic_count, 4
    IO_APIC_ENTRY 2, 0x10000
.no_hpet:

    ; Processor 1 sleeps between interrupts.
    mov rdi, ap_main
    call start_ap
    movzx eax, al
    mov [ap_count], eax
    EXPECT "start-up", ap_count, 1
    mov ebx, 20
.round:
    mov dword [r15 + APIC_ICR_HIGH], 1 << 24
    mov dword [r15 + APIC_ICR], PONG_VECTOR
    mov eax, 21
    sub eax, ebx
    mov rbp, PATIENCE
    mov r14, rax
    call now
    add rbp, rax
.answer:
    pause
    cmp [ping_count], r14d
    jae .answered
    call now
    cmp rax, rbp
    jb .answer
.answered:
    dec ebx
    jnz .round
    EXACTLY "ping-pong", ping_count, 20
    mov dword [r15 + APIC_ICR_HIGH], 1 << 24
    mov dword [r15 + APIC_ICR], 0x400
    EXPECT "NMI", nmi_count, 1
    mov dword [r15 + APIC_ICR], PING_VECTOR | 2 << 18   ; to all
    EXPECT "broadcast", ping_count, 22

    ; x2APIC: the last, as the page is gone after it.
    test dword [features], 1 << 21
    jz power_off
    mov ecx, 0x1b
    rdmsr
    or eax, 0x400
    wrmsr
    mov ecx, 0x83f
    mov eax, SELF_VECTOR
    xor edx, edx
    wrmsr
    EXPECT "x2APIC self", self_count, 1
    EXACTLY "x2APIC self once", self_count, 1
    jmp power_off

ap_main:
    sti
.sleep:
    hlt
    jmp .sleep

; 100 Hz, mode 2.
start_8254:
    mov al, 0x34
    out 0x43, al
    mov al, 11932 & 0xff
    out 0x40, al
    mov al, 11932 >> 8
    out 0x40, al
    ret

; esi name, rdi counter, ebp number
expect_at_least:
    mov r13, PATIENCE
    call now
    add r13, rax
.again:
    pause
    cmp [rdi], ebp
    jae say_ok
    call now
    cmp rax, r13
    jb .again
    jmp say_failed
expect_exactly:
    push rbx
    mov ebx, A_WHILE
    call wait_ticks
    pop rbx
    cmp [rdi], ebp
    je say_ok
say_failed:
    push rsi
    mov esi, failed
    call print
    pop rsi
    call print
    mov al, ' '
    call print_character
    mov eax, [rdi]
    call print_number
    jmp print_line_end
say_ok:
    push rsi
    mov esi, ok
    call print
    pop rsi
    call print
    jmp print_line_end
ok: db "ok ", 0
failed: db "failed ", 0

on_pic:
    ENTER
    inc dword [pic_count]
    mov al, 0x20
    out 0x20, al
    LEAVE
on_nothing:
    iretq
on_io_apic:
    inc dword [io_apic_count]
    mov dword [r15 + APIC_EOI], 0
    iretq
on_timer:
    ENTER
    inc dword [timer_count]
    mov eax, [r15 + APIC_ISR + TIMER_VECTOR / 32 * 16]
    shr eax, TIMER_VECTOR % 32
    and eax, 1
    mov [in_service], eax
    mov dword [r15 + APIC_EOI], 0
    LEAVE
on_deadline:
    ENTER
    inc dword [deadline_count]
    call now
    cmp rax, [deadline]
    jae .due
    inc dword [early_count]
.due:
    mov dword [r15 + APIC_EOI], 0
    LEAVE
on_self:
    ENTER
    inc dword [self_count]
    mov ecx, 0x80b
    xor eax, eax
    xor edx, edx
    wrmsr
    LEAVE
on_ping:
    lock inc dword [ping_count]
    mov dword [r15 + APIC_EOI], 0
    iretq
on_pong:
    mov dword [r15 + APIC_EOI], 0
    mov dword [r15 + APIC_ICR_HIGH], 0
    mov dword [r15 + APIC_ICR], PING_VECTOR
    iretq
on_level:
    ENTER
    inc dword [level_count]
    cmp dword [level_count], 3
    jb .more
    mov dx, COM1 + 1
    xor eax, eax
    out dx, al
.more:
    mov dword [r15 + APIC_EOI], 0
    LEAVE
on_nmi:
    inc dword [nmi_count]
    iretq

; Port, value: ICW1-4 of both, then only interrupt 0 open.
pic_words:
    db 0x20, 0x11, 0xa0, 0x11, 0x21, PIC_VECTOR, 0xa1, PIC_VECTOR + 8
    db 0x21, 4, 0xa1, 2, 0x21, 1, 0xa1, 1, 0x21, 0xfe, 0xa1, 0xff
pic_words_end:

    section .bss
features: resd 1
pic_count: resd 1
io_apic_count: resd 1
timer_count: resd 1
deadline_count: resd 1
early_count: resd 1
in_service: resd 1
self_count: resd 1
ping_count: resd 1
level_count: resd 1
nmi_count: resd 1
ap_count: resd 1
    alignb 8
deadline: resq 1
    section .text
%include "end.inc"
