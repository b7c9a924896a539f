// Guest loops that miss the first table of translations: 64-bit flat code, ended by HLT. RDI: data, RSI: its size
// in bytes (a power of two), RCX: rounds, R8 and R9: two values for CR3.
// The stride is a page and a line, else the host's own caches would be the bottleneck.

    .section .note.GNU-stack,"",@progbits
    .section .rodata
    .code64

.macro LOOP name
    .balign 64
    .globl loop_\name
loop_\name:
    xor %eax, %eax
    dec %rsi
1:
.endm
.macro DONE name
    dec %rcx
    jnz 1b
    hlt
    .globl loop_\name\()_end
loop_\name\()_end:
.endm

LOOP stride
    mov (%rdi,%rax), %rdx
    add $4160, %rax
    and %rsi, %rax
DONE stride

LOOP stride_write
    mov %rdx, (%rdi,%rax)
    add $4160, %rax
    and %rsi, %rax
DONE stride_write

LOOP random
    imul $0x19660d, %rbx
    add $0x3c6ef35f, %rbx
    mov %rbx, %rax
    shr $20, %rax
    and %rsi, %rax
    and $-64, %rax
    mov (%rdi,%rax), %rdx
DONE random

LOOP cr3
    mov %r8, %cr3
    mov %r9, %cr3
DONE cr3

// A kernel and a process at each side of the switch: 8 pages of the process, read by the kernel.
LOOP cr3_work
    mov %r8, %cr3
    mov (%rdi), %rdx
    mov 0x1000(%rdi), %rdx
    mov 0x2000(%rdi), %rdx
    mov 0x3000(%rdi), %rdx
    mov 0x4000(%rdi), %rdx
    mov 0x5000(%rdi), %rdx
    mov 0x6000(%rdi), %rdx
    mov 0x7000(%rdi), %rdx
    mov %r9, %cr3
    mov (%rdi), %rdx
    mov 0x1000(%rdi), %rdx
    mov 0x2000(%rdi), %rdx
    mov 0x3000(%rdi), %rdx
    mov 0x4000(%rdi), %rdx
    mov 0x5000(%rdi), %rdx
    mov 0x6000(%rdi), %rdx
    mov 0x7000(%rdi), %rdx
DONE cr3_work

LOOP invlpg
    invlpg (%rdi,%rax)
    mov (%rdi,%rax), %rdx
    add $4160, %rax
    and %rsi, %rax
DONE invlpg
