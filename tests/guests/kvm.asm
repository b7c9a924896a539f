; The paravirtual interface in KVM's form, as CPUID 0x40000100 offers it. [LINUX-KVM msr, cpuid, hypercalls]
; Processor 0 runs the tests.
%include "guest.inc"
%include "second_cpu.inc"
    CODE 64
WALL_CLOCK      equ 0x4b564d00
SYSTEM_TIME     equ 0x4b564d01
PV_EOI          equ 0x4b564d04
APIC_ISR        equ APIC + 0x100
EOI_WORD        equ FREE + 0x100
; The IDT has 64 vectors; these are of three priority classes.
LOWER           equ 0x1f
VECTOR          equ 0x21
HIGHER          equ 0x31

; WRITE_MSR index, value (64 bits)
%macro WRITE_MSR 2
    mov ecx, %1
    mov eax, (%2) & 0xffffffff
    mov edx, (%2) >> 32
    wrmsr
%endmacro
%macro CPUID_OF 1
    mov eax, %1
    xor ecx, ecx
    cpuid
%endmacro

TEST64 signature_and_features
    CPUID_OF 0x40000100
    EXPECT eax, 0x40000101
    EXPECT ebx, 'KVMK'
    EXPECT ecx, 'VMKV'
    EXPECT edx, 'M'
    CPUID_OF 0x40000101
    ; no I/O delay, clock at the new MSRs, EOI, IPI, yield, stable clock; nothing that needs more of us
    EXPECT eax, 1 << 1 | 1 << 3 | 1 << 6 | 1 << 11 | 1 << 13 | 1 << 24
    EXPECT edx, 0
    CPUID_OF 0x40000000
    EXPECT ebx, 'Tess'
    PASS

TEST64 msrs_read_back
    WRITE_MSR WALL_CLOCK, HIGH_FREE
    WRITE_MSR SYSTEM_TIME, (HIGH_FREE + 0x100) | 1
    WRITE_MSR PV_EOI, EOI_WORD | 1
    rdmsr
    EXPECT eax, EOI_WORD | 1
    EXPECT edx, 0
    mov ecx, WALL_CLOCK
    rdmsr
    EXPECT eax, HIGH_FREE
    mov ecx, SYSTEM_TIME
    rdmsr
    EXPECT eax, (HIGH_FREE + 0x100) | 1
    PASS

TEST64 msrs_that_are_not_there
    mov ecx, 0x4b564d02             ; asynchronous page faults
    FAULTS xGP, 0, rdmsr
    FAULTS xGP, 0, wrmsr
    mov ecx, 0x4b564d03             ; steal time
    FAULTS xGP, 0, rdmsr
    mov ecx, 0x4b564d05
    FAULTS xGP, 0, rdmsr
    mov ecx, PV_EOI
    mov eax, EOI_WORD | 3           ; bit 1 is reserved
    xor edx, edx
    FAULTS xGP, 0, wrmsr
    PASS

TEST64 system_time_page
    mov dword [FREE], 7             ; a version from before
    WRITE_MSR SYSTEM_TIME, FREE | 1
    EXPECT_BITS [FREE], 1, 0
    EXPECT_BITS [FREE + 28], 0x100, 0x100 ; stable
    ; (TSC - timestamp) scaled + system time does not go back
    mov r12d, 1000
    xor r13d, r13d
.again:
    rdtsc
    shl rdx, 32
    or rax, rdx
    sub rax, [FREE + 8]
    movsx ecx, byte [FREE + 28]
    test ecx, ecx
    js .right
    shl rax, cl
    jmp .shifted
.right:
    neg ecx
    shr rax, cl
.shifted:
    mov edx, [FREE + 24]
    mul rdx
    shrd rax, rdx, 32
    add rax, [FREE + 16]
    cmp rax, r13
    EXPECT_IF ae
    mov r13, rax
    dec r12d
    jnz .again
    ; it follows the TSC when that is moved
    mov rax, [FREE + 8]
    mov r12d, [FREE]
    mov ecx, 0x3b
    rdmsr
    add eax, 0x10000
    wrmsr
    mov eax, [FREE]
    cmp eax, r12d
    EXPECT_IF ne
    EXPECT_BITS [FREE], 1, 0
    EXPECT [FREE + 8], 0x10000
    PASS

TEST64 system_time_can_be_switched_off
    WRITE_MSR SYSTEM_TIME, FREE
    EXPECT [FREE], 0
    EXPECT [FREE + 24], 0
    PASS

TEST64 wall_clock_is_written_at_once
    mov dword [FREE + 12], 0x5a5a5a5a
    WRITE_MSR WALL_CLOCK, FREE
    cmp dword [FREE], 0
    EXPECT_IF ne
    EXPECT_BITS [FREE], 1, 0
    cmp dword [FREE + 8], 1000000000
    EXPECT_IF b
    EXPECT [FREE + 12], 0x5a5a5a5a
    PASS

; Whatever the guest says is its clock page: what is not RAM is not written, and there is no fault.
TEST64 addresses_that_are_no_ram
    mov rsi, .addresses
.next:
    mov rdi, [rsi]
    cmp rdi, -1
    je .done
    mov eax, edi
    mov rdx, rdi
    shr rdx, 32
    mov ecx, WALL_CLOCK
    wrmsr
    mov ecx, SYSTEM_TIME
    or eax, 1
    wrmsr
    mov ecx, PV_EOI
    and eax, ~2
    wrmsr
    add rsi, 8
    jmp .next
.done:
    mov ecx, 16
    mov rbx, MMIO
.mmio:
    EXPECT [rbx], 0
    add rbx, 8
    dec ecx
    jnz .mmio
    EXPECT [ROM], 0x03020100
    PASS
    align 8
.addresses:
    dq MMIO, MMIO + 0x1000, ROM, ROM - 8, 0xfee00000, 0xfffffff0, 0x100000000, 0x123456789000
    dq 0x1000000 - 4, 0x1000000 - 8, 0x1000000 - 12, 0x0000fffffffff000, 0xfffffffffffffff0, 0x7ffffffffffffffc
    dq FREE + 2, 0xa0000 - 4, -1

; A structure may lie in two pages.
TEST64 clock_page_across_a_boundary
    WRITE_MSR SYSTEM_TIME, (HIGH_FREE + 0xff4) | 1
    EXPECT_BITS [HIGH_FREE + 0xff4], 1, 0
    EXPECT_BITS [HIGH_FREE + 0xff4 + 28], 0x100, 0x100
    PASS

; The page is code as well: what was decoded is decoded anew.
TEST64 clock_page_over_code
    mov dword [FREE], 0xc3c0ff      ; INC EAX; RET
    xor eax, eax
    call FREE
    EXPECT eax, 1
    WRITE_MSR WALL_CLOCK, FREE
    mov dword [FREE], 0xc3c8ff      ; DEC EAX; RET
    mov eax, 5
    call FREE
    EXPECT eax, 4
    PASS

; --- hypercalls

TEST64 hypercall_numbers_and_levels
    mov rax, 0x1234
    vmmcall
    EXPECTQ rax, -1000
    mov rax, -1
    vmcall
    EXPECTQ rax, -1000
    mov eax, 11                     ; yield to APIC ID 0
    xor ebx, ebx
    vmmcall
    EXPECTQ rax, 0
    USER
    mov eax, 11
    vmmcall
    mov r12, rax
    mov eax, 0x1234
    vmcall
    mov r13, rax
    KERNEL
    EXPECTQ r12, -1
    EXPECTQ r13, -1
    PASS

TEST32P hypercalls_in_32_bit_code
    mov eax, 77
    vmmcall
    EXPECT eax, -1000
    mov eax, 11
    vmcall
    EXPECT eax, 0
    PASS

TEST64 hypercall_is_no_lockable_instruction
    CATCH .caught
    db 0xf0, 0x0f, 0x01, 0xd9
    FAIL
.caught:
    EXPECT [v_vec], xUD
    PASS

; --- end of interrupt

%macro APIC_ON 0
    mov dword [APIC_SVR], 0x1ff
    mov dword [EOI_WORD], 0
    WRITE_MSR PV_EOI, EOI_WORD | 1
    mov dword [v_user + 0x40], 0
    SETVECTOR VECTOR, KCODE64, .handler, 0x8e
%endmacro
%macro SELF_IPI 1
    mov dword [APIC_ICR], 0x40000 | %1
%endmacro
; The APIC has nothing in service.
%define NONE_IN_SERVICE NONE_IN_SERVICE_AT __?LINE?__
%macro NONE_IN_SERVICE_AT 1
    %assign %%word 0
    %rep 8
    EXPECT_AT %1, [APIC_ISR + %%word * 0x10], 0
    %assign %%word %%word + 1
    %endrep
%endmacro

TEST64 clearing_the_bit_ends_the_interrupt, WITH_APIC
    APIC_ON
    mov r12d, 3
.again:
    SELF_IPI VECTOR
    sti
    nop
    nop
    cli
    EXPECT [EOI_WORD], 0
    dec r12d
    jnz .again
    NONE_IN_SERVICE
    EXPECT [v_user + 0x40], 3       ; each was offered
    PASS
.handler:
    btr dword [EOI_WORD], 0
    adc dword [v_user + 0x40], 0
    iretq

TEST64 writing_eoi_all_the_same_is_right, WITH_APIC
    APIC_ON
    mov r12d, 3
.again:
    SELF_IPI VECTOR
    sti
    nop
    nop
    cli
    NONE_IN_SERVICE
    dec r12d
    jnz .again
    EXPECT [EOI_WORD], 0
    EXPECT [v_user + 0x40], 3
    PASS
.handler:
    bt dword [EOI_WORD], 0
    adc dword [v_user + 0x40], 0
    mov dword [APIC_EOI], 0
    iretq

; While the handler has not said anything the interrupt is in service, and others of its class wait.
TEST64 in_service_until_the_bit_is_cleared, WITH_APIC
    APIC_ON
    SELF_IPI VECTOR
    sti
    nop
    nop
    cli
    EXPECT [v_user + 0x40], 2       ; bit 1 of the word for 0x20-0x3f
    NONE_IN_SERVICE
    PASS
.handler:
    mov eax, [APIC_ISR + VECTOR / 32 * 0x10]
    mov [v_user + 0x40], eax
    btr dword [EOI_WORD], 0
    jc .done
    mov dword [APIC_EOI], 0
.done:
    iretq

; Something waits for the end of the interrupt: then the APIC must hear of it, and the bit says so.
TEST64 an_interrupt_that_waits_takes_the_offer_back, WITH_APIC
    APIC_ON
    SETVECTOR LOWER, KCODE64, .lower, 0x8e
    SELF_IPI VECTOR
    sti
    nop
    nop
    nop
    cli
    EXPECT [v_user + 0x40], 1       ; the second was delivered, after the first
    NONE_IN_SERVICE
    PASS
.handler:
    SELF_IPI LOWER
    btr dword [EOI_WORD], 0
    jc .done                        ; allowed: it was ended before the APIC was asked
    mov dword [APIC_EOI], 0
.done:
    iretq
.lower:
    inc dword [v_user + 0x40]
    btr dword [EOI_WORD], 0
    jc .lower_done
    mov dword [APIC_EOI], 0
.lower_done:
    iretq

TEST64 two_requested_at_once_need_the_apic, WITH_APIC
    APIC_ON
    SETVECTOR LOWER, KCODE64, .lower, 0x8e
    SELF_IPI VECTOR
    SELF_IPI LOWER
    sti
    nop
    nop
    nop
    cli
    EXPECT [v_user + 0x40], 2
    NONE_IN_SERVICE
    PASS
.handler:
    EXPECT [EOI_WORD], 0
    inc dword [v_user + 0x40]
    mov dword [APIC_EOI], 0
    iretq
.lower:
    inc dword [v_user + 0x40]
    btr dword [EOI_WORD], 0
    jc .lower_done
    mov dword [APIC_EOI], 0
.lower_done:
    iretq

TEST64 nested_interrupts_end_one_by_one, WITH_APIC
    APIC_ON
    SETVECTOR HIGHER, KCODE64, .higher, 0x8e
    SELF_IPI VECTOR
    sti
    nop
    nop
    nop
    cli
    EXPECT [v_user + 0x40], 2 + 2
    EXPECT [v_user + 0x48], 1
    NONE_IN_SERVICE
    PASS
.handler:
    SELF_IPI HIGHER
    sti
    nop
    nop
    cli
    mov eax, [APIC_ISR + VECTOR / 32 * 0x10]
    add [v_user + 0x40], eax        ; this one is still in service
    EXPECT [EOI_WORD], 0            ; and nothing else is offered for it
    mov dword [APIC_EOI], 0
    iretq
.higher:
    EXPECT [EOI_WORD], 0
    inc dword [v_user + 0x48]
    add dword [v_user + 0x40], 2
    mov dword [APIC_EOI], 0
    iretq

TEST64 switching_it_off_in_a_handler, WITH_APIC
    APIC_ON
    SELF_IPI VECTOR
    sti
    nop
    nop
    cli
    NONE_IN_SERVICE
    EXPECT [v_user + 0x40], 0
    PASS
.handler:
    WRITE_MSR PV_EOI, 0
    mov eax, [EOI_WORD]
    mov [v_user + 0x40], eax
    mov dword [APIC_EOI], 0
    iretq

TEST64 a_word_that_is_no_ram_is_never_offered, WITH_APIC
    APIC_ON
    WRITE_MSR PV_EOI, MMIO | 1
    SELF_IPI VECTOR
    sti
    nop
    nop
    cli
    EXPECT [MMIO], 0
    WRITE_MSR PV_EOI, 0xfee00000 + 0x80 + 1
    SELF_IPI VECTOR
    sti
    nop
    nop
    cli
    NONE_IN_SERVICE
    EXPECT [v_user + 0x40], 2
    PASS
.handler:
    inc dword [v_user + 0x40]
    mov dword [APIC_EOI], 0
    iretq

; An interrupt from another CPU that comes while the offer stands is not lost.
TEST64 interrupts_from_the_other_cpu_during_an_offer, WITH_APIC
    START_AP .ap
    APIC_ON
    SETVECTOR LOWER, KCODE64, .handler, 0x8e
    mov dword [ap_flag2], 1
    sti
.wait:
    pause
    cmp dword [v_user + 0x40], 400
    jb .wait
    cli
    PASS
.handler:
    inc dword [v_user + 0x40]
    btr dword [EOI_WORD], 0
    jc .done
    mov dword [APIC_EOI], 0
.done:
    inc dword [ap_flag]
    iretq
.ap:
    WAIT_FOR ap_flag2, 1
    xor ebx, ebx
.send:
    SEND_IPI 0, LOWER
    SEND_IPI 0, VECTOR
    add ebx, 2
.taken:
    pause
    cmp [ap_flag], ebx
    jb .taken
    cmp ebx, 400
    jb .send
    cli
    hlt

; --- interrupts by hypercall

TEST64 send_ipi_to_oneself, WITH_APIC
    APIC_ON
    mov eax, 10
    mov ebx, 1
    xor ecx, ecx
    xor edx, edx
    mov esi, VECTOR
    vmmcall
    EXPECTQ rax, 1
    sti
    nop
    nop
    cli
    EXPECT [v_user + 0x40], 1
    ; a CPU that is not there
    mov eax, 10
    mov ebx, ~3
    mov rcx, -1
    vmmcall
    EXPECTQ rax, 0
    ; the lowest ID is 2^64 - 1: nothing wraps
    mov eax, 10
    mov rbx, -1
    mov rdx, -1
    vmmcall
    EXPECTQ rax, 0
    PASS
.handler:
    inc dword [v_user + 0x40]
    mov dword [APIC_EOI], 0
    iretq

TEST64 send_ipi_to_the_other_cpu, WITH_APIC
    START_AP .ap
    SETVECTOR VECTOR, KCODE64, .handler, 0x8e
    WAIT_FOR ap_flag, 1
    mov eax, 10
    xor ebx, ebx
    mov ecx, 2                      ; bit 65: nobody has APIC ID 65
    xor edx, edx
    mov esi, VECTOR
    vmcall
    EXPECTQ rax, 0
    mov eax, 10
    mov ebx, 1                      ; bit 0 is APIC ID 1
    xor ecx, ecx
    mov edx, 1
    mov esi, VECTOR
    vmcall
    EXPECTQ rax, 1
    WAIT_FOR ap_flag2, 1
    PASS
.ap:
    mov dword [APIC_SVR], 0x1ff
    mov dword [ap_flag], 1
    sti
.wait:
    pause
    jmp .wait
.handler:
    mov dword [ap_flag2], 1
    mov dword [APIC_EOI], 0
    iretq
