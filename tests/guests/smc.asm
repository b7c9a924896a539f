; Code that changes: stores to code are seen by the next instruction of the same processor. [SDM 3A 11.6], [APM 2 7.6.1]
%include "guest.inc"

TEST64 store_to_the_next_instruction
    mov byte [.next], 0x43          ; INC EBX is ff c3; patch MOV BL, 1 to MOV BL, 2 instead
    mov byte [.next], 0xb3
    xor ebx, ebx
    mov byte [.next + 1], 2
.next:
    mov bl, 1
    EXPECT ebx, 2
    PASS

TEST64 store_behind_in_the_same_block
    mov ecx, 3
    xor ebx, ebx
.again:
    add bl, 1
    inc byte [.again + 2]           ; 1, 2, 3
    loop .again
    EXPECT ebx, 6
    PASS

TEST64 code_written_and_called_many_times
    mov ecx, 1000
    xor ebx, ebx
    mov word [FREE + 5], 0xc3c3
.again:
    mov byte [FREE], 0xb8           ; MOV EAX, ecx
    mov [FREE + 1], ecx
    mov eax, FREE
    call rax
    add ebx, eax
    loop .again
    EXPECT ebx, 500500
    PASS

TEST64 written_through_another_mapping
    mov qword [PT + FREE / 512], HIGH_FREE | 7
    mov rax, cr3
    mov cr3, rax
    mov dword [HIGH_FREE], 0xc301b0 ; MOV AL, 1; RET
    mov ebx, FREE
    call rbx
    EXPECTB al, 1
    mov byte [HIGH_FREE + 1], 2
    call rbx
    EXPECTB al, 2
    mov byte [FREE + 1], 3
    mov ebx, HIGH_FREE
    call rbx
    EXPECTB al, 3
    PASS

TEST64 instruction_across_two_pages_is_changed_in_the_second
    mov byte [FREE + 0xffe], 0xb8   ; MOV EAX, imm32; RET
    mov dword [FREE + 0xfff], 0x11111111
    mov byte [FREE + 0x1003], 0xc3
    mov ebx, FREE + 0xffe
    call rbx
    EXPECT eax, 0x11111111
    mov byte [FREE + 0x1002], 0x22
    call rbx
    EXPECT eax, 0x22111111
    mov byte [FREE + 0xfff], 0x33
    call rbx
    EXPECT eax, 0x22111133
    PASS

TEST64 second_page_remapped
    mov byte [FREE + 0xffe], 0xb8
    mov dword [FREE + 0xfff], 0x11111111
    mov byte [FREE + 0x1003], 0xc3
    mov dword [HIGH_FREE], 0xc3222222
    mov ebx, FREE + 0xffe
    call rbx
    EXPECT eax, 0x11111111
    mov qword [PT + (FREE + 0x1000) / 512], HIGH_FREE | 7
    invlpg [FREE + 0x1000]
    call rbx
    EXPECT eax, 0x22222211
    PASS

TEST64 code_page_remapped
    mov dword [FREE], 0xc301b0
    mov dword [HIGH_FREE], 0xc302b0
    mov ebx, FREE
    call rbx
    EXPECTB al, 1
    mov qword [PT + FREE / 512], HIGH_FREE | 7
    invlpg [FREE]
    call rbx
    EXPECTB al, 2
    PASS

TEST64 rep_movs_over_code
    mov dword [FREE], 0xc301b0
    mov dword [HIGH_FREE], 0xc302b0
    mov ebx, FREE
    call rbx
    mov edi, FREE
    mov esi, HIGH_FREE
    mov ecx, 4
    rep movsb
    call rbx
    EXPECTB al, 2
    PASS

TEST64 rep_stos_over_itself_ends_the_loop
    ; the REP STOSB overwrites the instructions behind it with NOPs
    lea rdi, [.behind]
    mov ecx, .end - .behind
    mov al, 0x90
    rep stosb
.behind:
    mov ebx, 1
    jmp .bad
.end:
    PASS
.bad:
    FAIL

TEST64 vector_store_over_code
    mov dword [FREE], 0xc301b0
    mov dword [HIGH_FREE], 0xc302b0
    mov ebx, FREE
    call rbx
    movups xmm0, [HIGH_FREE]
    movups [FREE], xmm0
    call rbx
    EXPECTB al, 2
    PASS

TEST64 push_over_code
    mov dword [FREE], 0xc301b0
    mov ebx, FREE
    call rbx
    mov rsp, FREE + 8
    push 0x00c302b0
    mov rsp, STACK0
    call rbx
    EXPECTB al, 2
    PASS

TEST64 locked_operations_over_code
    mov dword [FREE], 0xc301b0
    mov ebx, FREE
    call rbx
    lock inc byte [FREE + 1]
    call rbx
    EXPECTB al, 2
    mov cl, 9
    xchg [FREE + 1], cl
    call rbx
    EXPECTB al, 9
    PASS

TEST64 data_beside_code_can_change
    mov dword [FREE], 0xc301b0
    mov ebx, FREE
    mov ecx, 1000
.again:
    call rbx
    inc dword [FREE + 8]            ; the same 64 bytes
    loop .again
    EXPECT [FREE + 8], 1000
    PASS

TEST64 stack_on_the_code_page
    mov byte [FREE], 0x50           ; PUSH RAX; POP RAX; RET
    mov word [FREE + 1], 0xc358
    mov rsp, FREE + 0x40
    mov ebx, FREE
    mov ecx, 100
.again:
    call rbx
    loop .again
    mov rsp, STACK0
    PASS

TEST16 real_mode_patches_immediate
    mov cx, 5
    xor bx, bx
.again:
    mov al, 1
    add bl, al
    inc byte [.again + 1]
    loop .again
    EXPECTB bl, 15
    PASS

TEST16 real_mode_patch_through_another_segment
    mov ax, 0x800
    mov es, ax
    xor bx, bx
    mov byte [es:.next + 1 - 0x8000], 7
.next:
    mov bl, 1
    EXPECTB bl, 7
    PASS

TEST32 same_bytes_in_16_and_32_bit_code
    ; 05 01 00 00 00: ADD EAX, 1 or ADD AX, 1; ADD [BX+SI], AL
    mov dword [FREE], 0x00000105
    mov byte [FREE + 4], 0
    mov byte [FREE + 5], 0xcb       ; RETF
    SETDESC SPARE, 0, 0xfffff, 0x9b, 8
    SETDESC SPARE + 8, 0, 0xfffff, 0x9b, 0xc
    mov eax, 0xffff
    mov ebx, v_user
    xor esi, esi
    call dword (SPARE + 8):FREE
    EXPECT eax, 0x10000
    mov eax, 0xffff
    push dword 0
    mov [v_user + 16], esp
    push word KCODE32               ; a 16-bit far return
    push word .back
    jmp dword SPARE:FREE
.back:
    EXPECT eax, 0
    PASS

TEST64 breakpoint_patched_in_and_out
    mov dword [v_resume], 1 << xBP
    mov dword [FREE], 0xc3c001b0 & 0xff00ffff | 0xc30000
    mov ebx, FREE
    call rbx
    mov byte [FREE], 0xcc
    mov byte [FREE + 1], 0x90
    call rbx
    EXPECT [v_count], 1
    mov byte [FREE], 0x90
    call rbx
    EXPECT [v_count], 1
    PASS

TEST64 loop_that_patches_its_own_branch
    mov ecx, 10
    xor ebx, ebx
.again:
    inc ebx
    cmp ebx, 5
    jne .go
    mov byte [.back], 0x90          ; JMP short becomes two NOPs
    mov byte [.back + 1], 0x90
.go:
    dec ecx
.back:
    jmp short .again
    EXPECT ebx, 5
    PASS
