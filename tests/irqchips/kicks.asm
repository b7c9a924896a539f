; A virtio device's queue and the writes that tell of it: those that do, those that do not, and all of them while the
; device is reset, moved and taken off the bus. One line of output for each: "ok NAME" or "failed NAME". Ends with power
; off; with brief=1 on the command line before the wrong ways begin. Needs an entropy device, as the first virtio device and by PCI another one behind it, and two processors.
%include "pvh.inc"

PATIENCE        equ 1 << 34             ; ticks
A_WHILE         equ 1 << 21
KICKS           equ 5000
ROUNDS          equ 60
SIZE            equ 8                   ; of the queue
VIRTIO_MMIO     equ 0xfeb00000
SHIFT           equ 0x00800000          ; to where nobody is

; ROW name: ok if r14 is 0.
%macro ROW 1
    mov esi, %%name
    call row
    jmp %%done
%%name: db %1, 0
%%done:
%endmacro

main:
    xor r14d, r14d
    call find_device
    ROW "found"
    call start_device
    ROW "started"

    mov ebx, 100
.request:
    call post
    call kick
    call expect_answer
    dec ebx
    jnz .request
    ROW "requests"

    ; The test looks at how many of these have left the guest.
    mov ebx, KICKS
.kick:
    call kick
    dec ebx
    jnz .kick
    call post
    call kick
    call expect_answer
    ROW "kicks for nothing"
    xor eax, eax
    mov esi, brief_option
    call option
    test eax, eax
    jnz power_off

    mov edi, no_kicks
    call expect_silence
    call kick
    call expect_answer
    ROW "what is no kick"

    cmp dword [by_pci], 0
    je .common
    call post
    mov rax, [notify]
    mov dword [rax], 0
    call expect_answer
    ROW "32 bits"

    mov rax, [notify]
    movzx eax, word [rax]
    cmp eax, 0xffff
    setne r14b
    ROW "reads as nothing"

    mov edi, .at_the_old_place
    call expect_silence
    call kick
    call expect_answer
    mov ecx, -SHIFT
    call move
    call post
    call kick
    call expect_answer
    ROW "moved"

    ; Every write of the command register makes the device look by itself.
    call decode_off
    mov edi, kick
    call expect_silence
    call decode_on
    call kick
    call expect_answer
    ROW "off the bus and on it again"

    ; The HPET has the first bytes of this place.
    mov ecx, HPET
    sub ecx, [bar]
    push rcx
    call move
    call post
    call kick
    call expect_answer
    pop rcx
    neg ecx
    call move
    call post
    call kick
    call expect_answer
    ROW "a shared place"

    ; The other device comes to this one's place, and goes.
    mov edx, [other]
    mov eax, 0x10
    call config_read
    push rax
    mov ecx, [bar]
    mov eax, 0x10
    call config_write
    call post
    call kick
    call expect_answer
    pop rcx
    mov edx, [other]
    mov eax, 0x10
    call config_write
    call post
    call kick
    call expect_answer
    ROW "two at one place"

.common:
    call reset_device
    call kick
    mov rax, [notify]
    call start_device
    call post
    call kick
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
    call reset_device
    call start_device
    call post
    call kick
    call expect_answer
    cmp dword [by_pci], 0
    je .next
    mov ecx, SHIFT
    call move
    call post
    call kick
    call expect_answer
    call decode_off
    call decode_on
    mov ecx, -SHIFT
    call move
    call post
    call kick
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
    call kick
    call expect_answer
    ROW "silence"
    jmp power_off

.at_the_old_place:
    mov ecx, SHIFT
    call move
    mov rax, [notify]
    sub rax, SHIFT
    mov word [rax], 0
    ret

ap_main:
    mov r8, [notify]
.kick:
    cmp dword [by_pci], 0
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
    call post
    push rdi
    call rdi
    mov rbx, A_WHILE
    call wait_ticks
    pop rdi
    movzx eax, word [used + 2]
    cmp ax, [posted]
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
    mov rax, [notify]
    cmp dword [by_pci], 0
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
    movzx eax, word [used + 2]
    cmp ax, [posted]
    je .done
    call now
    cmp rax, rbx
    jb .wait
    mov r14d, 1
.done:
    pop rbx
    ret

; One byte is asked for.
post:
    movzx eax, word [posted]
    mov ecx, eax
    and ecx, SIZE - 1
    mov word [available + 4 + rcx * 2], 0
    inc eax
    mov [posted], ax
    mov [available + 2], ax
    mfence
    ret
kick:
    mov rax, [notify]
    cmp dword [by_pci], 0
    je .wide
    mov word [rax], 0
    ret
.wide:
    mov dword [rax], 0
    ret

reset_device:
    push rbx
    mov r8, [bar]
    mov rbx, PATIENCE
    call now
    add rbx, rax
    cmp dword [by_pci], 0
    je .mmio
    mov byte [r8 + 20], 0
.pci_wait:
    call now
    cmp rax, rbx
    ja .late
    cmp byte [r8 + 20], 0
    jne .pci_wait
    pop rbx
    ret
.mmio:
    mov dword [r8 + 0x70], 0
.mmio_wait:
    call now
    cmp rax, rbx
    ja .late
    cmp dword [r8 + 0x70], 0
    jne .mmio_wait
    pop rbx
    ret
.late:
    mov r14d, 4
    pop rbx
    ret

; [VIRTIO-1.2 3.1.1]
start_device:
    mov word [posted], 0
    mov dword [used], 0
    mov word [available], 1             ; no interrupts
    mov word [available + 2], 0
    mov dword [descriptor], byte_of_ours
    mov dword [descriptor + 4], 0
    mov dword [descriptor + 8], 1
    mov dword [descriptor + 12], 2      ; the device writes
    mov r8, [bar]
    cmp dword [by_pci], 0
    je .mmio
    mov byte [r8 + 20], 1
    mov byte [r8 + 20], 3
    mov dword [r8 + 8], 1
    mov dword [r8 + 12], 1              ; VERSION_1
    mov byte [r8 + 20], 0xb
    mov word [r8 + 22], 0
    mov word [r8 + 24], SIZE
    mov dword [r8 + 32], descriptor
    mov dword [r8 + 36], 0
    mov dword [r8 + 40], available
    mov dword [r8 + 44], 0
    mov dword [r8 + 48], used
    mov dword [r8 + 52], 0
    mov word [r8 + 28], 1
    mov byte [r8 + 20], 0xf
    cmp byte [r8 + 20], 0xf
    jne .wrong
    ret
.mmio:
    mov dword [r8 + 0x70], 1
    mov dword [r8 + 0x70], 3
    mov dword [r8 + 0x24], 1
    mov dword [r8 + 0x20], 1
    mov dword [r8 + 0x70], 0xb
    mov dword [r8 + 0x30], 0
    mov dword [r8 + 0x38], SIZE
    mov dword [r8 + 0x80], descriptor
    mov dword [r8 + 0x84], 0
    mov dword [r8 + 0x90], available
    mov dword [r8 + 0x94], 0
    mov dword [r8 + 0xa0], used
    mov dword [r8 + 0xa4], 0
    mov dword [r8 + 0x44], 1
    mov dword [r8 + 0x70], 0xf
    cmp dword [r8 + 0x70], 0xf
    jne .wrong
    ret
.wrong:
    mov r14d, 5
    ret

; By PCI: bar, notify, function, other; else bar and notify.
find_device:
    mov eax, VIRTIO_MMIO
    cmp dword [rax], 'virt'
    jne .pci
    mov [bar], rax
    add eax, 0x50
    mov [notify], rax
    ret
.pci:
    mov dword [by_pci], 1
    xor edx, edx
.slot:
    xor eax, eax
    call config_read
    cmp eax, 0x10441af4
    je .found
    add edx, 1 << 11
    cmp edx, 1 << 16
    jne .slot
    mov r14d, 2
    ret
.found:
    mov [function], edx
    add edx, 1 << 11
    mov [other], edx
    xor eax, eax
    call config_read
    cmp ax, 0x1af4
    jne .no_other
    mov edx, [function]
    mov eax, 4
    call config_read
    mov ecx, eax
    or ecx, 6                           ; memory, bus master
    mov eax, 4
    call config_write
    mov eax, 0x10
    call config_read
    and eax, ~0xf
    mov [bar], rax
    add eax, 0x3000
    mov [notify], rax
    ret
.no_other:
    mov r14d, 6
    ret
; edx: function, eax: register. eax: value
config_read:
    push rdx
    add eax, edx
    or eax, 1 << 31
    mov dx, 0xcf8
    out dx, eax
    mov dx, 0xcfc
    in eax, dx
    pop rdx
    ret
; ecx: value
config_write:
    push rdx
    add eax, edx
    or eax, 1 << 31
    mov dx, 0xcf8
    out dx, eax
    mov dx, 0xcfc
    mov eax, ecx
    out dx, eax
    pop rdx
    ret
; By ecx.
move:
    movsxd rcx, ecx
    add [bar], rcx
    add [notify], rcx
    mov ecx, [bar]
    mov edx, [function]
    mov eax, 0x10
    jmp config_write
decode_off:
    mov ecx, 4
    jmp command
decode_on:
    mov ecx, 6
command:
    mov edx, [function]
    mov eax, 4
    jmp config_write

brief_option: db "brief=", 0
ok_text: db "ok ", 0
failed_text: db "failed ", 0

    section .bss
    alignb 64
descriptor: resb 16 * SIZE
    alignb 64
available: resb 4 + 2 * SIZE + 2
    alignb 64
used: resb 4 + 8 * SIZE + 2
    alignb 64
bar: resq 1
notify: resq 1
kicks_by_ap: resq 1
by_pci: resd 1
function: resd 1
other: resd 1
ap_stops: resd 1
posted: resw 1
byte_of_ours: resb 1
%include "end.inc"
