// Guest loops, one per class of instruction: 64-bit flat code, position independent, ended by HLT.
// RDI points to 1 MiB of scratch memory, RSP to a stack, RCX holds the number of rounds.

    .section .note.GNU-stack,"",@progbits
    .section .rodata
    .code64

.macro KERNEL name
    .balign 64
    .globl bench_\name
bench_\name:
.endm
.macro DONE name
    dec %rcx
    jnz 1b
    hlt
    .globl bench_\name\()_end
bench_\name\()_end:
.endm

KERNEL alu
1:  add %rax, %rbx
    xor %rbx, %rdx
    lea 3(%rdx,%rax,2), %rsi
    sub $7, %eax
    and %rsi, %r8
    or %r8, %r9
    shl $3, %r10
    add $5, %r10d
    mov %rax, %r11
DONE alu

KERNEL memory
1:  mov (%rdi), %rax
    add $1, %rax
    mov %rax, (%rdi)
    mov 8(%rdi), %edx
    add %edx, 16(%rdi)
    movzbl 24(%rdi,%rdx), %esi
    mov %sil, 32(%rdi)
    cmp %rax, 40(%rdi)
DONE memory

KERNEL stream
1:  lea (%rdi), %rsi
    mov $512, %edx
2:  mov (%rsi), %rax
    add %rax, %rbx
    mov %rbx, 4096(%rsi)
    add $8, %rsi
    dec %edx
    jnz 2b
DONE stream

KERNEL branch
1:  test $1, %cl
    jz 2f
    add $3, %rax
2:  test $2, %cl
    jnz 3f
    add $5, %rax
3:  cmp %rax, %rbx
    ja 4f
    inc %rbx
4:
DONE branch

KERNEL call
1:  call 5f
    push %rax
    push %rbx
    call 5f
    pop %rbx
    pop %rax
    jmp 6f
5:  add $1, %rax
    ret
6:
DONE call

KERNEL indirect
    lea 5f(%rip), %rbx
    lea 6f(%rip), %rdx
1:  call *%rbx
    call *%rdx
    jmp 7f
5:  inc %rax
    ret
6:  dec %rsi
    ret
7:
DONE indirect

KERNEL muldiv
1:  mov %rcx, %rax
    imul $77, %rax, %rbx
    mul %rbx
    mov %rcx, %rax
    xor %edx, %edx
    mov $13, %esi
    div %rsi
    imul %rax, %rdx
DONE muldiv

KERNEL bits
1:  popcnt %rcx, %rax
    tzcnt %rcx, %rbx
    bsf %rcx, %rdx
    andn %rax, %rbx, %rsi
    shlx %rax, %rcx, %r8
    rol $5, %r9
    bt $3, %rcx
    adc %rax, %r10
    sete %r11b
    cmovc %rax, %rbx
DONE bits

KERNEL sse_scalar
    mov $3, %eax
    cvtsi2sd %eax, %xmm1
    cvtsi2sd %eax, %xmm2
1:  addsd %xmm1, %xmm0
    mulsd %xmm2, %xmm3
    subsd %xmm0, %xmm4
    movsd %xmm0, (%rdi)
    addsd 8(%rdi), %xmm4
    movapd %xmm4, %xmm5
DONE sse_scalar

KERNEL sse_packed
1:  movaps (%rdi), %xmm0
    addps %xmm1, %xmm0
    mulps %xmm2, %xmm0
    pxor %xmm3, %xmm4
    paddd %xmm0, %xmm4
    pshufd $0x1b, %xmm4, %xmm5
    movups %xmm0, 16(%rdi)
DONE sse_packed

KERNEL avx
1:  vmovups (%rdi), %ymm0
    vfmadd231pd %ymm1, %ymm2, %ymm0
    vpaddd %ymm0, %ymm3, %ymm4
    vxorps %ymm4, %ymm5, %ymm6
    vmovups %ymm0, 32(%rdi)
DONE avx

KERNEL x87
    fninit
1:  fld1
    fldpi
    faddp
    fld %st(0)
    fmul %st(1), %st
    fstpl (%rdi)
    fstp %st(0)
DONE x87

KERNEL rep_movs
1:  mov %rcx, %r8
    mov %rdi, %r9
    lea 8192(%rdi), %rsi
    mov $4096, %ecx
    rep movsb
    mov %r9, %rdi
    mov %r8, %rcx
DONE rep_movs

KERNEL lock
1:  lock add %rax, (%rdi)
    lock cmpxchg %rbx, 8(%rdi)
    xchg %rdx, 16(%rdi)
DONE lock
