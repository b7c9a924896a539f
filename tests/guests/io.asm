; Ports, memory-mapped I/O and ROM, reached by every kind of instruction.
%include "guest.inc"
%define READS [MMIO + 0xff8]
%define WRITES [MMIO + 0xffa]
%define WIDTH [MMIO + 0xffc]

TEST64 ports_by_width
    mov eax, 0x11223344
    out 0xf4, eax
    in al, 0xf4
    EXPECTB al, 0x44
    mov dx, 0xf6
    in ax, dx
    EXPECTW ax, 0x1122
    mov al, 0x99
    out 0xf5, al
    in eax, 0xf4
    EXPECT eax, 0x11229944
    PASS

TEST64 in_al_keeps_the_rest_and_in_eax_clears_the_upper_half
    mov rax, -1
    in al, 0xf8
    EXPECTQ rax, 0xffffffffffffff00
    mov rax, -1
    in ax, 0xf8
    EXPECTQ rax, 0xffffffffffff0000
    mov rax, -1
    in eax, 0xf8
    EXPECTQ rax, 0
    PASS

TEST64 absent_port_floats
    mov dx, 0x4321
    in al, dx
    EXPECTB al, 0xff
    in eax, dx
    EXPECT eax, 0xffffffff
    out dx, eax
    PASS

TEST64 outs_and_ins
    mov dword [v_user], 0x55667788
    mov esi, v_user
    mov dx, 0xf4
    outsd
    EXPECTQ rsi, v_user + 4
    mov edi, v_user + 8
    insb
    EXPECTB [v_user + 8], 0x88
    EXPECTQ rdi, v_user + 9
    PASS

TEST64 rep_ins_and_outs
    mov dword [v_user], 0x04030201
    mov esi, v_user
    mov ecx, 4
    mov dx, 0xf8
    rep outsb
    EXPECTQ rcx, 0
    in al, dx
    EXPECTB al, 4                   ; the last one
    mov edi, v_user + 8
    mov ecx, 3
    rep insb
    EXPECTQ rcx, 0
    EXPECT [v_user + 8], 0x00040404
    std
    mov edi, v_user + 18
    mov ecx, 2
    rep insw
    cld
    EXPECTQ rdi, v_user + 14
    PASS

TEST64 rep_ins_faults_at_the_page_end
    mov qword [PT + (FREE + 0x1000) / 512], 0
    mov edi, FREE + 0xffc
    mov ecx, 8
    mov dx, 0xf8
    FAULTS xPF, 2, rep insb
    EXPECT ecx, 4
    EXPECT edi, FREE + 0x1000
    PASS

TEST64 ins_ignores_segment_override_and_outs_takes_it
    mov ecx, 0xc0000100             ; FS base
    mov eax, FREE
    xor edx, edx
    wrmsr
    mov byte [FREE + v_user], 0x3c
    mov esi, v_user
    mov dx, 0xf8
    fs outsb
    in al, dx
    EXPECTB al, 0x3c
    mov edi, v_user + 1
    db 0x64
    insb
    EXPECTB [v_user + 1], 0x3c
    PASS

TEST64 mmio_mov_of_every_width
    mov byte [MMIO], 0x11
    EXPECTB WIDTH, 1
    mov word [MMIO + 2], 0x2222
    EXPECTB WIDTH, 2
    mov dword [MMIO + 4], 0x33333333
    EXPECTB WIDTH, 4
    mov rax, 0x4444444444444444
    mov [MMIO + 8], rax
    EXPECTB WIDTH, 8
    EXPECTW WRITES, 4
    EXPECTW READS, 0
    movzx eax, word [MMIO + 2]
    EXPECT eax, 0x2222
    EXPECTW READS, 1
    mov rbx, [MMIO]
    EXPECTQ rbx, 0x3333333322220011
    PASS

TEST64 mmio_read_modify_write
    mov dword [MMIO], 5
    add dword [MMIO], 3
    EXPECTW READS, 1
    EXPECTW WRITES, 2
    mov eax, [MMIO]
    EXPECT eax, 8
    lock inc dword [MMIO]
    not byte [MMIO + 1]
    shl word [MMIO], 1
    mov eax, [MMIO]
    EXPECT eax, 0xfe12
    mov ecx, 7
    xchg [MMIO], ecx
    EXPECT ecx, 0xfe12
    mov eax, 7
    mov ecx, 9
    lock cmpxchg [MMIO], ecx
    EXPECT_IF z
    mov eax, [MMIO]
    EXPECT eax, 9
    mov ecx, 1
    lock xadd [MMIO], ecx
    EXPECT ecx, 9
    bts dword [MMIO], 31
    mov eax, [MMIO]
    EXPECT eax, 0x8000000a
    PASS

TEST64 mmio_compare_only_reads
    cmp dword [MMIO], 0
    test dword [MMIO], 1
    EXPECTW READS, 2
    EXPECTW WRITES, 0
    PASS

TEST64 mmio_push_and_pop
    mov rax, 0x1122334455667788
    mov [MMIO], rax
    push qword [MMIO]
    pop rbx
    EXPECTQ rbx, 0x1122334455667788
    push rbx
    pop qword [MMIO + 8]
    mov rcx, [MMIO + 8]
    EXPECTQ rcx, 0x1122334455667788
    PASS

TEST64 mmio_as_stack
    mov rsp, MMIO + 0x40
    mov rax, 0x123456789
    push rax
    pop rbx
    EXPECTQ rbx, 0x123456789
    call .sub
    mov rsp, STACK0
    PASS
.sub:
    ret

TEST64 mmio_string_instructions
    mov esi, .text
    mov edi, MMIO
    mov ecx, 8
    rep movsb
    EXPECTW WRITES, 8
    EXPECTB WIDTH, 1
    mov esi, MMIO
    mov edi, v_user
    mov ecx, 2
    rep movsd
    EXPECTB WIDTH, 4
    mov rax, [.text]
    EXPECTQ [v_user], rax
    mov edi, MMIO
    mov al, 'd'
    mov ecx, 8
    repne scasb
    EXPECT ecx, 4
    mov esi, MMIO
    mov edi, .text
    mov ecx, 8
    repe cmpsb
    EXPECT_IF z
    mov eax, 0x5a5a5a5a
    mov edi, MMIO
    mov ecx, 2
    rep stosd
    mov esi, MMIO
    lodsd
    EXPECT eax, 0x5a5a5a5a
    PASS
.text:
    db "abcdefgh"

TEST64 mmio_vector_access
    movups xmm0, [.value]
    movups [MMIO], xmm0
    movups xmm1, [MMIO]
    pcmpeqd xmm0, xmm1
    pmovmskb eax, xmm0
    EXPECT eax, 0xffff
    movq [MMIO + 16], xmm1
    mov rax, [MMIO + 16]
    EXPECTQ rax, 0x0706050403020100
    paddd xmm1, [MMIO]
    movd eax, xmm1
    EXPECT eax, 0x06040200
    PASS
.value:
    db 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15

TEST64 mmio_x87_access
    fninit
    fld1
    fstp qword [MMIO]
    mov rax, [MMIO]
    EXPECTQ rax, 0x3ff0000000000000
    fld qword [MMIO]
    fstp tword [MMIO + 16]
    mov ax, [MMIO + 24]
    EXPECTW ax, 0x3fff
    fld tword [MMIO + 16]
    fistp dword [MMIO + 32]
    mov eax, [MMIO + 32]
    EXPECT eax, 1
    PASS

TEST64 mmio_access_across_its_edge
    ; the last bytes of low memory's hole: nothing is there
    mov eax, [MMIO + 0x2000]
    EXPECT eax, 0xffffffff
    mov dword [MMIO + 0x2000], 0
    mov eax, [MMIO + 0x2000]
    EXPECT eax, 0xffffffff
    PASS

TEST64 access_from_ram_into_mmio
    ; pages side by side: RAM, then MMIO
    mov qword [PT + (FREE + 0x1000) / 512], MMIO | 7
    invlpg [FREE + 0x1000]
    mov dword [FREE + 0xffe], 0xaabbccdd
    EXPECTW [FREE + 0xffe], 0xccdd
    mov ax, [MMIO]
    EXPECTW ax, 0xaabb
    mov eax, [FREE + 0xffe]
    EXPECT eax, 0xaabbccdd
    add dword [FREE + 0xffe], 0x00010001
    mov eax, [FREE + 0xffe]
    EXPECT eax, 0xaabcccde
    PASS

TEST64 rom_ignores_writes
    mov dword [ROM + 0x10], 0
    EXPECT [ROM + 0x10], 0x13121110
    inc byte [ROM]
    EXPECTB [ROM], 0
    lock or dword [ROM], -1
    EXPECT [ROM], 0x03020100
    mov edi, ROM
    mov ecx, 16
    mov al, 0xcc
    rep stosb
    EXPECT [ROM], 0x03020100
    push rax
    mov rsp, ROM + 0x100
    push rax
    mov rsp, STACK0 - 8
    EXPECT [ROM + 0xf8], 0xfbfaf9f8
    PASS

TEST64 code_runs_from_rom
    ; bytes 0x98 to 0x9a of the ROM are CWDE, CDQ, #UD
    mov eax, 0x8000
    xor edx, edx
    CATCH .caught
    mov ebx, ROM + 0x98
    jmp rbx
.caught:
    EXPECT [v_vec], xUD
    EXPECT [v_ip], ROM + 0x9a
    EXPECT eax, 0xffff8000
    EXPECT edx, -1
    PASS

TEST64 code_runs_from_mmio
    mov dword [MMIO], 0xc307b0      ; MOV AL, 7; RET
    mov ebx, MMIO
    call rbx
    EXPECTB al, 7
    mov byte [MMIO + 1], 8          ; never kept
    call rbx
    EXPECTB al, 8
    PASS

TEST64 cmpxchg16b_on_mmio_and_ram
    mov rax, 1
    mov rdx, 2
    mov rbx, 3
    mov rcx, 4
    mov qword [v_user], 1
    mov qword [v_user + 8], 2
    lock cmpxchg16b [v_user]
    EXPECT_IF z
    EXPECTQ [v_user], 3
    EXPECTQ [v_user + 8], 4
    FAULTS xGP, 0, lock cmpxchg16b [v_user + 8]
    PASS

TEST32 mmio_in_32_bit_mode
    mov dword [MMIO], 0x1234
    add dword [MMIO], eax
    pushad
    mov esi, MMIO
    mov edi, v_user
    mov ecx, 1
    rep movsd
    popad
    EXPECTB WIDTH, 4
    fninit
    fldz
    fsave [MMIO]
    frstor [MMIO]
    PASS
