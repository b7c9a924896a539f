; A guest that notices when something of it is lost: it counts, sleeps, takes interrupts of two periodic timers,
; of its own and of a second processor, and checks at every turn that time goes forward and that registers, MSRs
; and chips are as it left them. It writes a dot for each tick of the local APIC's timer. When it is sent a 'q'
; it writes what it found, a number a line, and switches the machine off.
;
; Ticks. A timer's n-th interrupt is due n periods after its start, by the ACPI PM timer: it stands still while the
; VM does, as the timers do, which the TSC of some hosts' KVM does not. At each interrupt the guest compares how many
; are due with how many it had. One that is missing is `lost`, unless the processor did not execute for half a period
; meanwhile (the host was busy): then it is `excused`.
%include "pvh.inc"

TIMER_VECTOR    equ 0x50            ; local APIC, periodic
PIT_VECTOR      equ 0x51            ; 8254 by the I/O APIC's pin 2
SELF_VECTOR     equ 0x60            ; of higher priority than the timers
PING_VECTOR     equ 0x61            ; to processor 1
PONG_VECTOR     equ 0x62            ; and back
APIC_HZ         equ 1000000000      ; of its timer, here as in KVM
APIC_PERIOD     equ 23456789        ; 43 interrupts a second
PIT_HZ          equ 1193182
PM_TIMER        equ 0x608
PM_HZ           equ 3579545
PIT_DIVISOR     equ 52345           ; 23 interrupts a second

; What is known of a timer.
    struc timer
.count: resq 1                      ; interrupts taken
.start: resq 1                      ; by the guest's clock, in counts of the PM timer
.number: resq 1                     ; due = counts since the start * number / divisor
.divisor: resq 1
.half: resq 1                       ; half a period in counts
.behind: resq 1                     ; due, less taken, at the last interrupt
.gap: resq 1                        ; the longest time between two looks at the clock since then
.lost: resq 1
.excused: resq 1
.back: resq 1                       ; taken later than they were due
    endstruc

; Waits for a counter (a word in memory) to be what RBX is.
%macro WAIT_FOR 1
%%again:
    call look
    cmp [%1], rbx
    jne %%again
%endmacro

main:
    GATE TIMER_VECTOR, on_timer
    GATE PIT_VECTOR, on_pit
    GATE SELF_VECTOR, on_self
    GATE PING_VECTOR, on_ping
    GATE PONG_VECTOR, on_pong
    call now
    mov [last_tsc], rax
    mov [first_tsc], rax
    mov dx, PM_TIMER
    in eax, dx
    mov [last_count], eax
    mov edi, ap_main
    call start_ap
    mov [ap_there], al
    call set_marks
    call start_timer
    call start_pit
    sti

; --- one turn of the loop
turn:
    inc qword [turns]
    call look
    call check_marks
    mov eax, [turns]
    and eax, 3
    jmp [.ways + rax * 8]
    align 8
.ways: dq .self, .held_back, .ping, .sleep
.self:
    mov rbx, [selves_sent]
    inc rbx
    mov [selves_sent], rbx
    mov dword [r15 + APIC_ICR], 0x44000 | SELF_VECTOR
    WAIT_FOR selves
    jmp .end
.held_back:                         ; waits in the local APIC for a while
    mov rbx, [selves_sent]
    inc rbx
    mov [selves_sent], rbx
    cli
    mov dword [r15 + APIC_ICR], 0x44000 | SELF_VECTOR
    mov ecx, 5
.hold:
    call look
    loop .hold
    sti
    WAIT_FOR selves
    jmp .end
.ping:
    cmp byte [ap_there], 0
    je .end
    mov rbx, [pings]
    inc rbx
    mov [pings], rbx
    call now
    mov [pinged_at], rax
    cli                             ; both halves of the command belong together
    mov dword [r15 + APIC_ICR_HIGH], 1 << 24
    mov dword [r15 + APIC_ICR], 0x4000 | PING_VECTOR
    sti
    WAIT_FOR pongs
    ; Time is one for both processors.
    mov rax, [ponged_at]
    cmp rax, [pinged_at]
    jae .not_before
    inc qword [disordered]
.not_before:
    call now
    cmp rax, [ponged_at]
    jae .end
    inc qword [disordered]
    jmp .end
.sleep:
    hlt                             ; until any of the timers
.end:
    mov rax, [lapic + timer.count]
    cmp rax, [dots]
    je .no_dot
    mov [dots], rax
    mov al, '.'
    call print_character
.no_dot:
    mov dx, COM1 + 5
    in al, dx
    test al, 1
    jz turn
    mov dx, COM1
    in al, dx
    cmp al, 'q'
    jne turn

; --- the end
    mov ebx, 1 << 20                ; what is on its way arrives
    call wait_ticks
    cli
    mov dword [r15 + APIC_LVT_TIMER], 0x10000
    call print_line_end
    mov ebx, lapic
    mov esi, .lapic
    call report_timer
    mov ebx, pit
    mov esi, .pit
    call report_timer
%macro REPORT 2
    mov esi, %1
    call print
    mov rax, %2
    call print_number
    call print_line_end
%endmacro
    REPORT .turns, [turns]
    REPORT .selves_sent, [selves_sent]
    REPORT .selves, [selves]
    REPORT .pings, [pings]
    REPORT .pongs, [pongs]
    REPORT .clock, [clock]
    mov rax, [first_tsc]
    sub [last_tsc], rax
    REPORT .tsc, [last_tsc]
    REPORT .backwards, [backwards]
    REPORT .disordered, [disordered]
    REPORT .marks, [marks_lost]
    mov esi, .done
    call print
    jmp power_off
.lapic: db "lapic_", 0
.pit: db "pit_", 0
.turns: db "turns ", 0
.selves_sent: db "self_ipis_sent ", 0
.selves: db "self_ipis ", 0
.pings: db "pings ", 0
.pongs: db "pongs ", 0
.clock: db "clock ", 0
.tsc: db "tsc ", 0
.backwards: db "backwards ", 0
.disordered: db "disordered ", 0
.marks: db "marks_lost ", 0
.done: db "done", 10, 0

; The timer at rbx, with the text at rsi before each line.
report_timer:
    mov rdi, rsi
    call look
%macro REPORT_TIMER 2
    mov rsi, rdi
    call print
    REPORT %1, [rbx + timer.%2]
%endmacro
    call due
    mov [rbx + timer.start], rax    ; no longer needed as such
    REPORT_TIMER .due, start
    REPORT_TIMER .taken, count
    REPORT_TIMER .lost, lost
    REPORT_TIMER .excused, excused
    REPORT_TIMER .back, back
    ret
.due: db "due ", 0
.taken: db "taken ", 0
.lost: db "lost ", 0
.excused: db "excused ", 0
.back: db "back ", 0

; --- the second processor
ap_main:
    sti
.again:
    mov ecx, 1000
.awake:
    inc qword [ap_turns]
    pause
    loop .awake
    cli
    cmp byte [ap_sleeps], 0
    sti
    je .again
    hlt                             ; until the next ping
    jmp .again

; --- what the guest looks after

; A look at the clocks: forward only. rax is lost. They are read with interrupts as they are, since most of the guest's
; time goes there: if a handler has had a look meanwhile, both are read again.
look:
    push rcx
    push rdx
    pushfq
.again:
    mov ecx, [looks]
    call now
    push rax
    mov dx, PM_TIMER
    in eax, dx
    pop rdx
    cli
    cmp ecx, [looks]
    je .alone
    push qword [rsp]
    popfq
    jmp .again
.alone:
    inc dword [looks]
    cmp rdx, [last_tsc]
    jae .tsc_forward
    inc qword [backwards]
.tsc_forward:
    mov [last_tsc], rdx
    mov edx, eax
    sub edx, [last_count]
    mov [last_count], eax
    jns .forward
    inc qword [backwards]
    xor edx, edx
.forward:
    add [clock], rdx
    cmp rdx, [lapic + timer.gap]
    jbe .not_lapic
    mov [lapic + timer.gap], rdx
.not_lapic:
    cmp rdx, [pit + timer.gap]
    jbe .not_pit
    mov [pit + timer.gap], rdx
.not_pit:
    popfq
    pop rdx
    pop rcx
    ret

MARK            equ 0x123456789abc0000
MSR_MARK        equ 0x00007ead_beef_0000
; FMASK has 32 bits, SYSENTER_EIP on AMD's processors too.
%define HIGH_HALF(msr) (msr == 0xc0000084 || msr == 0x176 ? 0 : (MSR_MARK >> 32))
%macro EACH_MSR 1
    %1 0xc0000100                   ; FS base
    %1 0xc0000102                   ; KERNEL_GS base
    %1 0xc0000082                   ; LSTAR
    %1 0xc0000084                   ; FMASK
    %1 0x176                        ; SYSENTER_EIP
%endmacro
%macro SET_MSR 1
    mov ecx, %1
    mov eax, (MSR_MARK + %1) & 0xfffff000
    mov edx, HIGH_HALF(%1)
    wrmsr
%endmacro
%macro CHECK_MSR 1
    mov ecx, %1
    rdmsr
    cmp eax, (MSR_MARK + %1) & 0xfffff000
    call count_mark
    cmp edx, HIGH_HALF(%1)
    call count_mark
%endmacro
set_marks:
    mov rbp, MARK + 1
    mov r8, MARK + 2
    mov r9, MARK + 3
    mov r10, MARK + 4
    mov r11, MARK + 5
    mov r12, MARK + 6
    mov r13, MARK + 7
    mov r14, MARK + 8
    mov rax, MARK + 9
    mov cr2, rax
    mov eax, 0x1234
    mov dr0, rax
    mov eax, 0x5678
    mov dr3, rax
    EACH_MSR SET_MSR
    ret
%macro CHECK 2
    mov rax, %2
    cmp %1, rax
    call count_mark
%endmacro
check_marks:
    CHECK rbp, MARK + 1
    CHECK r8, MARK + 2
    CHECK r9, MARK + 3
    CHECK r10, MARK + 4
    CHECK r11, MARK + 5
    CHECK r12, MARK + 6
    CHECK r13, MARK + 7
    CHECK r14, MARK + 8
    mov rdx, cr2
    CHECK rdx, MARK + 9
    mov rdx, dr0
    CHECK rdx, 0x1234
    mov rdx, dr3
    CHECK rdx, 0x5678
    EACH_MSR CHECK_MSR
    mov edx, [r15 + APIC_SVR]
    CHECK rdx, 0x1ff
    mov edx, [r15 + APIC_LVT_TIMER]
    CHECK rdx, 0x20000 | TIMER_VECTOR
    ret
; Not equal: something is not as it was.
count_mark:
    je .same
    inc qword [marks_lost]
.same:
    ret

; --- the timers
; SET_TIMER timer, counts of a period, their frequency
%macro SET_TIMER 3
    mov qword [%1 + timer.number], %3
    mov rax, (%2) * PM_HZ
    mov [%1 + timer.divisor], rax
    mov qword [%1 + timer.half], (%2) * PM_HZ / (%3) / 2
    call look
    mov rax, [clock]
    mov [%1 + timer.start], rax
%endmacro
start_timer:
    SET_TIMER lapic, APIC_PERIOD, APIC_HZ
    mov dword [r15 + APIC_TIMER_DIV], 0xb
    mov dword [r15 + APIC_LVT_TIMER], 0x20000 | TIMER_VECTOR
    mov dword [r15 + APIC_TIMER_INIT], APIC_PERIOD
    ret
start_pit:
    SET_TIMER pit, PIT_DIVISOR, PIT_HZ
    mov esi, IO_APIC
    mov dword [rsi], 0x15
    mov dword [rsi + 0x10], 0
    mov dword [rsi], 0x14
    mov dword [rsi + 0x10], PIT_VECTOR
    mov al, 0x34                    ; counter 0, both bytes, mode 2
    out 0x43, al
    mov al, PIT_DIVISOR & 0xff
    out 0x40, al
    mov al, PIT_DIVISOR >> 8
    out 0x40, al
    ret

; rax: how many interrupts of the timer at rbx are due now, by the last look. rdx is lost. A quarter of a period early is
; in time: the two clocks are not the same to the last digit.
due:
    mov rax, [clock]
    sub rax, [rbx + timer.start]
    mul qword [rbx + timer.number]
    push rcx
    mov rcx, [rbx + timer.divisor]
    shr rcx, 2
    add rax, rcx
    adc rdx, 0
    pop rcx
    div qword [rbx + timer.divisor]
    ret

; An interrupt of the timer at rbx. rax, rdx are lost.
tick:
    call look
    inc qword [rbx + timer.count]
    call due
    sub rax, [rbx + timer.count]
    mov rdx, rax
    xchg rax, [rbx + timer.behind]
    sub rdx, rax
    jz .same
    js .back
    mov rax, [rbx + timer.gap]
    cmp rax, [rbx + timer.half]
    jae .excused
    add [rbx + timer.lost], rdx
    jmp .same
.excused:
    add [rbx + timer.excused], rdx
    jmp .same
.back:
    sub [rbx + timer.back], rdx
.same:
    mov qword [rbx + timer.gap], 0
    mov dword [r15 + APIC_EOI], 0
    ret

; --- handlers
on_timer:
    push rax
    push rbx
    push rdx
    mov ebx, lapic
    call tick
    pop rdx
    pop rbx
    pop rax
    iretq
on_pit:
    push rax
    push rbx
    push rdx
    mov ebx, pit
    call tick
    pop rdx
    pop rbx
    pop rax
    iretq
on_self:
    inc qword [selves]
    mov dword [r15 + APIC_EOI], 0
    iretq
on_ping:                            ; on processor 1, which sleeps every other time
    push rax
    push rdx
    call now
    mov [ponged_at], rax
    xor byte [ap_sleeps], 1
    mov dword [r15 + APIC_ICR_HIGH], 0
    mov dword [r15 + APIC_ICR], 0x4000 | PONG_VECTOR
    mov dword [r15 + APIC_EOI], 0
    pop rdx
    pop rax
    iretq
on_pong:
    inc qword [pongs]
    mov dword [r15 + APIC_EOI], 0
    iretq

    section .bss
    alignb 64
lapic: resb timer_size
    alignb 64
pit: resb timer_size
    alignb 64
turns: resq 1
dots: resq 1
clock: resq 1
last_tsc: resq 1
first_tsc: resq 1
last_count: resd 1
looks: resd 1
    alignb 8
backwards: resq 1
disordered: resq 1
marks_lost: resq 1
selves_sent: resq 1
selves: resq 1
pings: resq 1
pongs: resq 1
pinged_at: resq 1
ap_there: resb 1
    alignb 64
ponged_at: resq 1
ap_turns: resq 1
ap_sleeps: resb 1
%include "end.inc"
