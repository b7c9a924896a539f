// Loads a whole register state, jumps into the snippet, and stores the state it leaves.
// Layout of Registers: gpr[16] at 0, rip 128, rflags 136, xsave image at 192.

    .section .note.GNU-stack,"",@progbits
    .bss
    .balign 64
    .globl tessera_native_in
tessera_native_in:  .skip 1088
    .balign 64
    .globl tessera_native_out
tessera_native_out: .skip 1088
    .globl tessera_native_host_rsp
tessera_native_host_rsp: .skip 8
tessera_native_target:   .skip 8
# The snippet's FS base, 0 if it has none, and ours.
    .globl tessera_native_fs
tessera_native_fs:       .skip 8
    .globl tessera_native_host_fs
tessera_native_host_fs:  .skip 8

    .text
    .globl tessera_native_enter
    .type tessera_native_enter, @function
tessera_native_enter:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    sub $8, %rsp
    mov %rsp, tessera_native_host_rsp(%rip)
    mov $7, %eax
    xor %edx, %edx
    xrstor64 tessera_native_in+192(%rip)
    mov tessera_native_fs(%rip), %rax
    test %rax, %rax
    jz 1f
    wrfsbase %rax
1:
    mov tessera_native_in+128(%rip), %rax
    mov %rax, tessera_native_target(%rip)
    pushq tessera_native_in+136(%rip)
    mov tessera_native_in+0(%rip), %rax
    mov tessera_native_in+8(%rip), %rcx
    mov tessera_native_in+16(%rip), %rdx
    mov tessera_native_in+24(%rip), %rbx
    mov tessera_native_in+40(%rip), %rbp
    mov tessera_native_in+48(%rip), %rsi
    mov tessera_native_in+56(%rip), %rdi
    mov tessera_native_in+64(%rip), %r8
    mov tessera_native_in+72(%rip), %r9
    mov tessera_native_in+80(%rip), %r10
    mov tessera_native_in+88(%rip), %r11
    mov tessera_native_in+96(%rip), %r12
    mov tessera_native_in+104(%rip), %r13
    mov tessera_native_in+112(%rip), %r14
    mov tessera_native_in+120(%rip), %r15
    popfq
    mov tessera_native_in+32(%rip), %rsp
    jmp *tessera_native_target(%rip)

    .globl tessera_native_exit
tessera_native_exit:
    mov %rsp, tessera_native_out+32(%rip)
    mov tessera_native_host_rsp(%rip), %rsp
    pushfq
    popq tessera_native_out+136(%rip)
    mov %rax, tessera_native_out+0(%rip)
    mov %rcx, tessera_native_out+8(%rip)
    mov %rdx, tessera_native_out+16(%rip)
    mov %rbx, tessera_native_out+24(%rip)
    mov %rbp, tessera_native_out+40(%rip)
    mov %rsi, tessera_native_out+48(%rip)
    mov %rdi, tessera_native_out+56(%rip)
    mov %r8, tessera_native_out+64(%rip)
    mov %r9, tessera_native_out+72(%rip)
    mov %r10, tessera_native_out+80(%rip)
    mov %r11, tessera_native_out+88(%rip)
    mov %r12, tessera_native_out+96(%rip)
    mov %r13, tessera_native_out+104(%rip)
    mov %r14, tessera_native_out+112(%rip)
    mov %r15, tessera_native_out+120(%rip)
    mov $7, %eax
    xor %edx, %edx
    xsave64 tessera_native_out+192(%rip)

    // Also where the signal handler sends a snippet that faulted; tessera_native_out is filled then.
    .globl tessera_native_leave
tessera_native_leave:
    cld
    mov tessera_native_host_rsp(%rip), %rsp
    cmpq $0, tessera_native_fs(%rip)
    je 1f
    mov tessera_native_host_fs(%rip), %rax
    wrfsbase %rax
1:
    fninit
    ldmxcsr default_mxcsr(%rip)
    vzeroupper
    pushq $0x202
    popfq
    add $8, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret
    .size tessera_native_enter, . - tessera_native_enter

    .section .rodata
    .balign 4
default_mxcsr: .long 0x1f80
