; What it costs a guest to be left: round trips to ports, devices and processors, and how late wake-ups are, in
; ticks of the time-stamp counter. Prints, for each row,
;     row NAME COUNT TICKS...
; COUNT is how often a batch did it, TICKS how long each batch took in all. `skip NAME` says that this machine
; cannot. Options on the command line: ticks=N, how long a batch is to take at least; hypercalls=0, make none.
%include "pvh.inc"

SELF_VECTOR     equ 0x40
TIMER_VECTOR    equ 0x41
DEVICE_VECTOR   equ 0x42
PING_VECTOR     equ 0x43
PONG_VECTOR     equ 0x44
X2_VECTOR       equ 0x45
INT_VECTOR      equ 0x46
TSC_AUX         equ 0xc0000103
TSC_DEADLINE    equ 0x6e0
X2APIC_EOI      equ 0x80b
X2APIC_SELF     equ 0x83f
BATCHES         equ 9
SAMPLES         equ 65
DELAY           equ 1 << 19         ; ticks to an event waited for awake,
SLEEP           equ 1 << 21         ; and asleep

; A row: ROW name, and the code that does it r10 times follows up to END_ROW. Free: all but r9-r15.
%macro ROW 1
    jmp %%end_of_body
%%name: db %1, 0
%%body:
    %push row
    %define %$body %%body
    %define %$name %%name
    %define %$end %%end_of_body
%%again:
    %define %$again %%again
%endmacro
%macro END_ROW 0
    dec r10
    jnz %$again
    ret
%$end:
    mov esi, %$name
    mov edi, %$body
    call measure
    %pop
%endmacro
; SAMPLE name, routine: the routine gives one sample in rax.
%macro SAMPLE 2
    jmp %%go
%%name: db %1, 0
%%go:
    mov esi, %%name
    mov edi, %2
    call sample
%endmacro
%macro SKIP 1+
    jmp %%go
%%names: db %1, 0
%%go:
    mov esi, %%names
    call skip
%endmacro
; Jumps to the label unless CPUID says so: leaf, register, bit.
%macro UNLESS_CPUID 4
    mov eax, %1
    xor ecx, ecx
    cpuid
    bt %2, %3
    jnc %4
%endmacro

main:
    GATE SELF_VECTOR, on_self
    GATE TIMER_VECTOR, on_timer
    GATE DEVICE_VECTOR, on_device
    GATE PING_VECTOR, on_ping
    GATE PONG_VECTOR, on_self
    GATE X2_VECTOR, on_x2
    GATE INT_VECTOR, on_int
    GATE 6, on_undefined
    mov eax, 1 << 25
    mov esi, ticks_option
    call option
    mov [batch_ticks], rax
    mov esi, begin_text
    call print
    call now
    call print_number
    call print_line_end

    call processor_rows
    call port_rows
    call mmio_rows
    call virtio_rows
    call interrupt_rows
    call timer_rows
    call ipi_rows
    call x2apic_rows

    mov esi, end_text
    call print
    call now
    call print_number
    call print_line_end
    jmp power_off

processor_rows:
    ROW "loop"
    END_ROW
    ROW "cpuid"
    xor eax, eax
    cpuid
    END_ROW
    ROW "rdtsc"
    rdtsc
    END_ROW
    ROW "rdmsr"                     ; of the memory types, which no processor gives a guest by itself
    mov ecx, 0x2ff
    rdmsr
    END_ROW
    UNLESS_CPUID 0x80000001, edx, 27, .no_tsc_aux
    ROW "wrmsr"                     ; of TSC_AUX
    mov ecx, TSC_AUX
    xor eax, eax
    xor edx, edx
    wrmsr
    END_ROW
    jmp .hypercall
.no_tsc_aux:
    SKIP "wrmsr"
.hypercall:
    call find_hypercall
    jc .no_hypercall
    cmp byte [is_amd], 0
    je .intel
    ROW "hypercall"                 ; one that does not exist
    mov eax, 9999
    vmmcall
    END_ROW
    jmp .memory
.intel:
    ROW "hypercall"
    mov eax, 9999
    vmcall
    END_ROW
    jmp .memory
.no_hypercall:
    SKIP "hypercall"
.memory:
    ROW "cr3_write"
    mov rax, cr3
    mov cr3, rax
    END_ROW
    ROW "exception"                 ; invalid opcode, its handler goes on behind it
    ud2
    END_ROW
    ROW "int_instruction"
    int INT_VECTOR
    END_ROW
    ret

port_rows:
    ROW "port_out"                  ; to the port nobody is at
    out 0x80, al
    END_ROW
    ROW "port_in_uart"              ; line status
    mov dx, COM1 + 5
    in al, dx
    END_ROW
    ROW "port_out_uart"             ; scratch
    mov dx, COM1 + 7
    out dx, al
    END_ROW
    ROW "port_in_pic"               ; interrupt mask
    in al, 0x21
    END_ROW
    ROW "port_rep_outsb_64"         ; 64 bytes by one instruction
    mov esi, idt
    mov ecx, 64
    mov dx, 0x80
    rep outsb
    END_ROW
    ret

mmio_rows:
    mov r9d, IO_APIC
    mov dword [r9], 1
    ROW "mmio_read_ioapic"          ; version
    mov eax, [r9 + 0x10]
    END_ROW
    ROW "mmio_write_ioapic"         ; index
    mov dword [r9], 1
    END_ROW
    mov r9d, HPET
    mov eax, [r9]
    inc eax
    cmp eax, 2
    jb .no_hpet
    ROW "mmio_read_hpet"            ; counter
    mov eax, [r9 + 0xf0]
    END_ROW
    ROW "mmio_write_hpet"           ; comparator of a timer that is off
    mov dword [r9 + 0x148], eax
    END_ROW
    jmp .apic
.no_hpet:
    SKIP "mmio_read_hpet"
    SKIP "mmio_write_hpet"
.apic:
    ROW "apic_read"                 ; version
    mov eax, [r15 + APIC_VERSION]
    END_ROW
    ROW "apic_write"                ; task priority
    mov dword [r15 + APIC_TPR], 0
    END_ROW
    ret

virtio_rows:
    call entropy_find
    jc .none
    call entropy_start
    jc .none
    cmp dword [entropy_by_pci], 0
    je .mmio
    mov r9, [entropy_notify]
    ROW "virtio_kick"               ; for nothing
    mov word [r9], 0
    END_ROW
    ROW "virtio_kick_exit"
    mov dword [r9], 0
    END_ROW
    ROW "virtio_request"            ; a byte of randomness
    call entropy_post
    mov word [r9], 0
.wait:
    pause
    call entropy_answered
    jne .wait
    END_ROW
    ROW "virtio_request_exit"
    call entropy_post
    mov dword [r9], 0
.wait_exit:
    pause
    call entropy_answered
    jne .wait_exit
    END_ROW
    jmp .done
.mmio:
    mov r9, [entropy_notify]
    ROW "virtio_kick"
    mov dword [r9], 0
    END_ROW
    SKIP "virtio_kick_exit"
    ROW "virtio_request"
    call entropy_post
    mov dword [r9], 0
.wait_mmio:
    pause
    call entropy_answered
    jne .wait_mmio
    END_ROW
    SKIP "virtio_request_exit"
.done:
    call entropy_reset
    ret
.none:
    SKIP "virtio_kick"
    SKIP "virtio_kick_exit"
    SKIP "virtio_request"
    SKIP "virtio_request_exit"
    ret

interrupt_rows:
    sti
    ROW "self_ipi"                  ; with its handler and its end of interrupt
    mov r8, [count]
    inc r8
    mov dword [r15 + APIC_ICR], 0x44000 | SELF_VECTOR
.self:
    cmp [count], r8
    jne .self
    END_ROW
    ; COM1 is pin 4 of the I/O APIC, edge triggered.
    mov r9d, IO_APIC
    mov dword [r9], 0x19
    mov dword [r9 + 0x10], 0
    mov dword [r9], 0x18
    mov dword [r9 + 0x10], DEVICE_VECTOR
    ROW "device_interrupt"          ; of the UART: three port accesses, handler, end of interrupt
    mov r8, [count]
    inc r8
    mov dx, COM1 + 1
    mov al, 2                       ; transmitter empty
    out dx, al
.device:
    cmp [count], r8
    jne .device
    END_ROW
    mov dword [r9 + 0x10], 0x10000
    cli
    ret

timer_rows:
    ; How many counts of the timer are how many ticks.
    mov dword [r15 + APIC_TIMER_DIV], 0xb
    mov dword [r15 + APIC_LVT_TIMER], 0x10000 | TIMER_VECTOR
    call now
    mov r8, rax
    mov dword [r15 + APIC_TIMER_INIT], 0xffffffff
    mov ebx, 1 << 25
    call wait_ticks
    mov ecx, [r15 + APIC_TIMER_NOW]
    not ecx
    mov [timer_counts], rcx
    call now
    sub rax, r8
    mov [timer_ticks], rax
    mov dword [r15 + APIC_LVT_TIMER], TIMER_VECTOR
    ROW "timer_set"                 ; one-shot, far ahead
    mov dword [r15 + APIC_TIMER_INIT], 0xfffffff0
    END_ROW
    mov dword [r15 + APIC_TIMER_INIT], 0
    sti
    SAMPLE "timer_late", oneshot_awake
    SAMPLE "hlt_wake", oneshot_asleep
    UNLESS_CPUID 1, ecx, 24, .no_deadline
    mov dword [r15 + APIC_LVT_TIMER], 0x40000 | TIMER_VECTOR
    ROW "deadline_set"              ; far ahead
    call now
    mov edx, eax
    shr rax, 32
    xchg eax, edx
    inc edx
    mov ecx, TSC_DEADLINE
    wrmsr
    END_ROW
    mov ecx, TSC_DEADLINE
    xor eax, eax
    xor edx, edx
    wrmsr
    SAMPLE "deadline_late", deadline_awake
    SAMPLE "hlt_wake_deadline", deadline_asleep
    mov dword [r15 + APIC_LVT_TIMER], 0x10000
    cli
    ret
.no_deadline:
    SKIP "deadline_set"
    SKIP "deadline_late"
    SKIP "hlt_wake_deadline"
    mov dword [r15 + APIC_LVT_TIMER], 0x10000
    cli
    ret

; Each: how many ticks after the time asked for the handler began.
oneshot_awake:
    mov r8d, DELAY
    call set_oneshot
    jmp wait_awake
oneshot_asleep:
    mov r8d, SLEEP
    call set_oneshot
    jmp wait_asleep
deadline_awake:
    mov r8d, DELAY
    call set_deadline
    jmp wait_awake
deadline_asleep:
    mov r8d, SLEEP
    call set_deadline
    jmp wait_asleep
set_oneshot:
    mov qword [fired_at], 0
    mov rax, r8
    mul qword [timer_counts]
    div qword [timer_ticks]
    mov ecx, eax
    call now
    mov [r15 + APIC_TIMER_INIT], ecx
    add r8, rax
    ret
set_deadline:
    mov qword [fired_at], 0
    call now
    add r8, rax
    mov rax, r8
    mov rdx, r8
    shr rdx, 32
    mov ecx, TSC_DEADLINE
    wrmsr
    ret
wait_awake:
    mov rax, [fired_at]
    test rax, rax
    jz wait_awake
    jmp lateness
wait_asleep:
    cli
    mov rax, [fired_at]
    test rax, rax
    jnz .fired
    sti
    hlt
    jmp wait_asleep
.fired:
    sti
lateness:
    sub rax, r8
    jae .late
    xor eax, eax                    ; the count was rounded down
.late:
    ret

ipi_rows:
    mov edi, ap_main
    call start_ap
    test al, al
    jz .alone
    sti
    mov dword [ap_spins], 1
    call wake_ap
    ROW "ipi_running"               ; there and back
    call ping
.pong:
    pause
    cmp [count], r8
    jne .pong
    END_ROW
    mov dword [ap_spins], 0
    mov ebx, 1 << 24
    call wait_ticks
    ROW "ipi_halted"                ; there and back, both asleep meanwhile
    call ping
.asleep:
    cli
    cmp [count], r8
    je .answered
    sti
    hlt
    jmp .asleep
.answered:
    sti
    END_ROW
    cli
    ; Out of the way: what follows changes the mode of one local APIC only.
    mov dword [r15 + APIC_ICR_HIGH], 1 << 24
    mov dword [r15 + APIC_ICR], 0x4500
    ret
.alone:
    SKIP "ipi_running"
    SKIP "ipi_halted"
    ret
ping:
    mov r8, [count]
    inc r8
    mov dword [r15 + APIC_ICR_HIGH], 1 << 24
    mov dword [r15 + APIC_ICR], 0x4000 | PING_VECTOR
    ret
wake_ap:
    call ping
.wait:
    pause
    cmp [count], r8
    jne .wait
    ret
ap_main:
    sti
.again:
    cli
    cmp dword [ap_spins], 0
    jne .spin
    sti
    hlt
    jmp .again
.spin:
    sti
    pause
    cmp dword [ap_spins], 0
    jne .spin
    jmp .again

x2apic_rows:
    UNLESS_CPUID 1, ecx, 21, .no_x2apic
    mov ecx, 0x1b
    rdmsr
    or eax, 0x400
    wrmsr
    sti
    ROW "x2apic_self_ipi"
    mov r8, [count]
    inc r8
    mov ecx, X2APIC_SELF
    mov eax, X2_VECTOR
    xor edx, edx
    wrmsr
.self:
    cmp [count], r8
    jne .self
    END_ROW
    cli
    ret
.no_x2apic:
    SKIP "x2apic_self_ipi"
    ret

; --- handlers
on_self:
    inc qword [count]
    mov dword [r15 + APIC_EOI], 0
    iretq
on_timer:
    push rax
    push rdx
    call now
    mov [fired_at], rax
    mov dword [r15 + APIC_EOI], 0
    pop rdx
    pop rax
    iretq
on_device:
    push rax
    push rdx
    mov dx, COM1 + 2
    in al, dx                       ; which takes the interrupt back
    mov dx, COM1 + 1
    xor eax, eax
    out dx, al
    inc qword [count]
    mov dword [r15 + APIC_EOI], 0
    pop rdx
    pop rax
    iretq
on_ping:                            ; on processor 1
    mov dword [r15 + APIC_ICR_HIGH], 0
    mov dword [r15 + APIC_ICR], 0x4000 | PONG_VECTOR
    mov dword [r15 + APIC_EOI], 0
    iretq
on_x2:
    push rax
    push rcx
    push rdx
    inc qword [count]
    mov ecx, X2APIC_EOI
    xor eax, eax
    xor edx, edx
    wrmsr
    pop rdx
    pop rcx
    pop rax
on_int:
    iretq
on_undefined:
    add qword [rsp], 2
    iretq

; --- the measuring. rsi: name, rdi: what does it r10 times
measure:
    mov [name], rsi
    mov [body], rdi
    mov qword [iterations], 1
.grow:
    call batch
    cmp rax, [batch_ticks]
    jae .enough
    shl qword [iterations], 1
    jmp .grow
.enough:
    call row_begin
    mov dword [left], BATCHES
.batch:
    call batch
    call row_number
    dec dword [left]
    jnz .batch
    jmp print_line_end
batch:
    push r9
    mov r10, [iterations]
    call now
    mov [begun], rax
    call [body]
    call now
    sub rax, [begun]
    pop r9
    ret
sample:
    mov [name], rsi
    mov [body], rdi
    mov qword [iterations], 1
    call [body]                     ; not counted: it finds everything cold
    call row_begin
    mov dword [left], SAMPLES
.sample:
    call [body]
    call row_number
    dec dword [left]
    jnz .sample
    jmp print_line_end
row_begin:
    mov esi, row_text
    call print
    mov rsi, [name]
    call print
    mov rax, [iterations]
row_number:
    push rax
    mov al, ' '
    call print_character
    pop rax
    jmp print_number
skip:
    push rsi
    mov esi, skip_text
    call print
    pop rsi
    call print
    jmp print_line_end

; Carry: no hypercall interface in KVM's form, none of the features that need one, or none is wanted.
find_hypercall:
    mov eax, 1
    mov esi, hypercalls_option
    call option
    test eax, eax
    jz .none
    xor eax, eax
    cpuid
    cmp ecx, 'cAMD'
    sete [is_amd]
    mov r8d, 0x40000000
.leaf:
    mov eax, r8d
    cpuid
    cmp ebx, 'KVMK'
    je .found
    add r8d, 0x100
    cmp r8d, 0x40000200
    jb .leaf
.none:
    stc
    ret
.found:
    lea eax, [r8 + 1]
    cpuid
    test eax, 1 << 7 | 1 << 11 | 1 << 13    ; unhalt, send IPI, yield
    jz .none
    clc
    ret

row_text: db "row ", 0
skip_text: db "skip ", 0
begin_text: db "exits begin ", 0
end_text: db "exits end ", 0
ticks_option: db "ticks=", 0
hypercalls_option: db "hypercalls=", 0

    section .bss
    alignb 64
count: resq 1
    alignb 64
ap_spins: resd 1
    alignb 64
fired_at: resq 1
batch_ticks: resq 1
timer_counts: resq 1
timer_ticks: resq 1
name: resq 1
body: resq 1
iterations: resq 1
begun: resq 1
left: resd 1
is_amd: resb 1
    section .text
%include "entropy.inc"
%include "end.inc"
