; A virtio device's queue and the writes that tell of it: those that do, those that do not, and all of them while the
; device is reset, moved and taken off the bus. One line of output for each: "ok NAME" or "failed NAME". Ends with power
; off; with brief=1 on the command line before the wrong ways begin. Needs an entropy device, as the first virtio device and by PCI another one behind it, and two processors.
%include "pvh.inc"

PATIENCE        equ 1 << 34             ; ticks
A_WHILE         equ 1 << 21
KICKS           equ 5000
ROUNDS          equ 40
SHIFT           equ 0x00800000          ; to where nobody is

; ROW name: ok if r14 is 0.
%macro ROW 1
    mov esi, %%name
    call row
    jmp %%done
%%name: db %1, 0
%%done:
%endmacro

; Carry is wrong.
%macro CHECK 0
    jnc %%fine
    mov r14d, 2
%%fine:
%endmacro

main:
    xor r14d, r14d
    call entropy_find
    CHECK
    call find_other
    ROW "found"
    call entropy_start
    CHECK
    ROW "started"

    mov ebx, 100
.request:
    call entropy_post
    call entropy_kick
    call expect_answer
    dec ebx
    jnz .request
    ROW "requests"

    ; The test looks at how many of these have left the guest.
    mov ebx, KICKS
.kick:
    call entropy_kick
    dec ebx
    jnz .kick
    call entropy_post
    call entropy_kick
    call expect_answer
    ROW "kicks for nothing"
    xor eax, eax
    mov esi, brief_option
    call option
    test eax, eax
    jnz power_off

    mov edi, no_kicks
    call expect_silence
    call entropy_kick
    call expect_answer
    ROW "what is no kick"

    cmp dword [entropy_by_pci], 0
    je .common
    call entropy_post
    mov rax, [entropy_notify]
    mov dword [rax], 0
    call expect_answer
    ROW "32 bits"

    mov rax, [entropy_notify]
    movzx eax, word [rax]
    cmp eax, 0xffff
    setne r14b
    ROW "reads as nothing"

    mov edi, .at_the_old_place
    call expect_silence
    call entropy_kick
    call expect_answer
    mov ecx, -SHIFT
    call move
    call entropy_post
    call entropy_kick
    call expect_answer
    ROW "moved"

    ; Every write of the command register makes the device look by itself.
    call decode_off
    mov edi, entropy_kick
    call expect_silence
    call decode_on
    call entropy_kick
    call expect_answer
    ROW "off the bus and on it again"

    ; The HPET has the first bytes of this place.
    mov ecx, HPET
    sub ecx, [entropy_registers]
    push rcx
    call move
    call entropy_post
    call entropy_kick
    call expect_answer
    pop rcx
    neg ecx
    call move
    call entropy_post
    call entropy_kick
    call expect_answer
    ROW "a shared place"

    ; The other device comes to this one's place, and goes.
    mov edx, [other]
    mov eax, 0x10
    call config_read
    push rax
    mov ecx, [entropy_registers]
    mov eax, 0x10
    call config_write
    call entropy_post
    call entropy_kick
    call expect_answer
    pop rcx
    mov edx, [other]
    mov eax, 0x10
    call config_write
    call entropy_post
    call entropy_kick
    call expect_answer
    ROW "two at one place"

.common:
    call entropy_reset
    CHECK
    call entropy_kick
    mov rax, [entropy_notify]
    call entropy_start
    CHECK
    call entropy_post
    call entropy_kick
    call expect_answer
    ROW "reset"

    ; Processor 1 kicks all the time.
    mov edi, ap_main
    call start_ap
    xor al, 1
    movzx r14d, al
    ROW "second processor"
    mov ebx, ROUNDS
.round:
    call entropy_reset
    CHECK
    call entropy_start
    CHECK
    call entropy_post
    call entropy_kick
    call expect_answer
    cmp dword [entropy_by_pci], 0
    je .next
    mov ecx, SHIFT
    call move
    call entropy_post
    call entropy_kick
    call expect_answer
    call decode_off
    call decode_on
    mov ecx, -SHIFT
    call move
    call entropy_post
    call entropy_kick
    call expect_answer
.next:
    test r14d, r14d
    jnz .enough
    dec ebx
    cmp ebx, 0
    jg .round
    cmp qword [kicks_by_ap], 1000
    jb .round
.enough:
    ROW "all at once"
    mov dword [ap_stops], 1
    mov rbx, A_WHILE
    call wait_ticks
    mov edi, nothing
    call expect_silence
    call entropy_kick
    call expect_answer
    ROW "silence"
    jmp power_off

.at_the_old_place:
    mov ecx, SHIFT
    call move
    mov rax, [entropy_notify]
    sub rax, SHIFT
    mov word [rax], 0
    ret

ap_main:
    mov r8, [entropy_notify]
.kick:
    cmp dword [entropy_by_pci], 0
    je .wide
    mov word [r8], 0
    jmp .kicked
.wide:
    mov dword [r8], 0
.kicked:
    inc qword [kicks_by_ap]
    cmp dword [ap_stops], 0
    je .kick
.halt:
    cli
    hlt
    jmp .halt

; --- the test's parts. r14: what was wrong.

row:
    push rsi
    mov esi, ok_text
    test r14d, r14d
    jz .ok
    mov esi, failed_text
.ok:
    call print
    pop rsi
    call print
    test r14d, r14d
    jz .end
    mov al, ' '
    call print_character
    mov eax, r14d
    call print_number
.end:
    xor r14d, r14d
    jmp print_line_end

; Posts a request, does what is at edi, and is content if the device was not told. It may look by itself shortly after
; the last request: then again.
expect_silence:
    mov r13d, 5
.again:
    push rdi
    mov rbx, A_WHILE
    call wait_ticks
    pop rdi
    call entropy_post
    push rdi
    call rdi
    mov rbx, A_WHILE
    call wait_ticks
    pop rdi
    call entropy_answered
    jne .silent
    cmp edi, main.at_the_old_place      ; which moves
    jne .next
    mov ecx, -SHIFT
    push rdi
    call move
    pop rdi
.next:
    dec r13d
    jnz .again
    mov r14d, 3
.silent:
    ret
nothing:
    ret
no_kicks:
    mov rax, [entropy_notify]
    cmp dword [entropy_by_pci], 0
    je .mmio
    mov byte [rax], 0
    mov qword [rax], 0                  ; a compiler's 64-bit store
    mov word [rax + 2], 0
    mov word [rax + 4], 0               ; a queue there is not
    mov word [rax + 0x800], 0
    mov word [rax - 2], 0
    mov dword [rax + 2], 0
    ret
.mmio:
    mov byte [rax], 0
    mov word [rax], 0
    mov dword [rax], 1                  ; a queue there is not
    mov dword [rax], 0x10000
    mov dword [rax], 0xffffffff
    mov dword [rax - 2], 0
    ret

expect_answer:
    push rbx
    mov rbx, PATIENCE
    call now
    add rbx, rax
.wait:
    pause
    call entropy_answered
    je .done
    call now
    cmp rax, rbx
    jb .wait
    mov r14d, 1
.done:
    pop rbx
    ret

; Behind it.
find_other:
    cmp dword [entropy_by_pci], 0
    je .done
    mov edx, [entropy_function]
    add edx, 1 << 11
    mov [other], edx
    xor eax, eax
    call config_read
    cmp ax, 0x1af4
    je .done
    mov r14d, 4
.done:
    ret
; By ecx.
move:
    movsxd rcx, ecx
    add [entropy_registers], rcx
    add [entropy_notify], rcx
    mov ecx, [entropy_registers]
    mov edx, [entropy_function]
    mov eax, 0x10
    jmp config_write
decode_off:
    mov ecx, 4
    jmp command
decode_on:
    mov ecx, 6
command:
    mov edx, [entropy_function]
    mov eax, 4
    jmp config_write

brief_option: db "brief=", 0
ok_text: db "ok ", 0
failed_text: db "failed ", 0

    section .bss
    alignb 8
kicks_by_ap: resq 1
other: resd 1
ap_stops: resd 1
    section .text
%include "entropy.inc"
%include "end.inc"
