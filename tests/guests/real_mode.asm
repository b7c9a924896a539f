; Real mode: the interrupt vector table, 64-KiB limits, addresses.
%include "guest.inc"

TEST16 int_pushes_flags_cs_ip_and_clears_if_tf
    sti
    mov dword [0x40 * 4], .handler
    push cs
    mov bp, sp
    int 0x40
.after:
    FAIL
.handler:
    pushf
    pop ax
    test ax, 0x300
    EXPECT_IF z
    pop ax
    EXPECTW ax, .after
    pop ax
    EXPECTW ax, 0
    pop ax
    test ax, 0x200
    EXPECT_IF nz
    EXPECTW sp, bp
    PASS

TEST16 iret_restores_flags
    push word 0x0ed7                ; all status flags, DF, IF
    push cs
    push word .back
    iret
.back:
    pushf
    pop ax
    and ax, 0x0ed5
    EXPECTW ax, 0x0ed5
    PASS

TEST16 word_access_at_ffff_is_gp
    FAULTS xGP, NO_ERROR, mov ax, [0xffff]
    PASS

TEST16 word_access_at_ffff_of_stack_segment_is_ss
    mov bp, 0xffff
    FAULTS xSS, NO_ERROR, mov ax, [bp]
    PASS

TEST16 dword_access_at_fffd_is_gp
    FAULTS xGP, NO_ERROR, mov eax, [0xfffd]
    mov eax, [0xfffc]
    PASS

TEST16 address_32_beyond_limit_is_gp
    mov ebx, 0x10000
    FAULTS xGP, NO_ERROR, mov al, [ebx]
    PASS

; #SS, and there is no room for its frame either [SDM 2B PUSH, real-address mode].
TEST16 push_with_sp_1_shuts_down
    mov al, 2
    out 0xec, al
    mov sp, 1
    push ax
    FAIL

TEST16 push_with_sp_0_wraps
    xor ax, ax
    mov ss, ax
    mov sp, 0
    mov ax, 0x4000
    mov ss, ax
    push word 0x1234
    EXPECTW sp, 0xfffe
    mov ds, ax
    mov ax, [0xfffe]
    EXPECTW ax, 0x1234
    PASS

TEST16 divide_error_points_at_instruction
    xor cl, cl
    FAULTS xDE, NO_ERROR, div cl
    PASS

TEST16 ivt_limit_too_small_shuts_down
    lidt [.small]
    mov al, 2
    out 0xec, al
    int 0x40
    FAIL
.small:
    dw 0x1f                         ; not even the double fault has a vector
    dd 0

TEST16 vector_beyond_ivt_limit_is_gp
    lidt [.small]
    FAULTS xGP, NO_ERROR, int 0x40
    PASS
.small:
    dw 0xff
    dd 0

TEST16 into_without_overflow_is_nothing
    xor ax, ax
    into
    mov al, 0x7f
    add al, 1
    CATCH .caught
    into
.after:
    FAIL
.caught:
    EXPECT [v_vec], xOF
    EXPECT [v_ip], .after
    PASS

TEST16 bound_outside_is_br
    mov word [v_user], 5
    mov word [v_user + 2], 10
    mov ax, 10
    bound ax, [v_user]
    mov ax, 11
    FAULTS xBR, NO_ERROR, bound ax, [v_user]
    mov ax, 4
    FAULTS xBR, NO_ERROR, bound ax, [v_user]
    PASS

TEST16 protected_mode_instructions_are_ud
    FAULTS xUD, NO_ERROR, sldt ax
    FAULTS xUD, NO_ERROR, str ax
    FAULTS xUD, NO_ERROR, lldt ax
    FAULTS xUD, NO_ERROR, ltr ax
    FAULTS xUD, NO_ERROR, lar ax, bx
    FAULTS xUD, NO_ERROR, lsl ax, bx
    FAULTS xUD, NO_ERROR, verr ax
    FAULTS xUD, NO_ERROR, arpl ax, bx
    PASS

TEST16 lock_on_mov_is_ud
    CATCH .caught
    db 0xf0
    mov [v_user], ax
    FAIL
.caught:
    EXPECT [v_vec], xUD
    PASS

TEST16 far_call_and_ret_16
    mov word [0x40], 0
    call 0x0100:(.sub - 0x1000)
    PASS
.sub:
    mov bp, sp
    mov ax, cs
    EXPECTW ax, 0x100
    EXPECTW [bp + 2], 0
    retf

TEST16 far_call_and_ret_32
    mov ebp, esp
    call dword 0x0100:(.sub - 0x1000)
    EXPECTW sp, bp
    PASS
.sub:
    mov si, bp
    sub si, 8
    EXPECTW sp, si
    o32 retf

TEST16 unreal_mode_keeps_limit
    lgdt [gdt_pointer]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    mov ax, KDATA
    mov ds, ax
    mov eax, cr0
    and al, 0xfe
    mov cr0, eax
    mov ebx, HIGH_FREE
    mov dword [ebx], 0x12345678
    EXPECT [ebx], 0x12345678
    xor ax, ax
    mov ds, ax                      ; a real-mode load keeps the limit
    EXPECT [ebx], 0x12345678
    mov ax, 0x10
    mov ds, ax                      ; and makes the base
    EXPECT [ebx - 0x100], 0x12345678
    PASS

TEST16 address_ffff_ffff_reaches_above_1m
    mov ax, 0xffff
    mov ds, ax
    mov byte [0x10], 0x5a           ; linear 0x100000
    lgdt [cs:gdt_pointer]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    mov ax, KDATA
    mov es, ax
    mov eax, cr0
    and al, 0xfe
    mov cr0, eax
    mov ebx, 0x100000
    mov al, [es:ebx]
    xor bx, bx
    mov ds, bx
    EXPECTB al, 0x5a
    PASS

TEST16 string_copy_wraps_at_64k
    mov ax, 0x4000
    mov es, ax
    mov ax, 0x5000
    mov ds, ax
    mov byte [0xffff], 0x11
    mov byte [0], 0x22
    mov si, 0xffff
    mov di, 0xffff
    mov cx, 2
    rep movsb
    EXPECTW si, 1
    EXPECTW di, 1
    EXPECTW cx, 0
    EXPECTB [es:0xffff], 0x11
    EXPECTB [es:0], 0x22
    PASS

TEST16 ip_beyond_64k_is_gp
    CATCH .caught
    mov byte [0x0], 0
    mov eax, 0x10000
    jmp eax
    FAIL
.caught:
    EXPECT [v_vec], xGP
    PASS
