; Debug registers, single-stepping, debug exceptions. [SDM 3B 18.2, 18.3], [APM 2 13.1]
%include "guest.inc"
%macro SET_DR 2
    %if MODE_BITS == 64
    mov rax, %2
    mov %1, rax
    %else
    mov eax, %2
    mov %1, eax
    %endif
%endmacro
%define RESUME(v) dword [v_resume], 1 << v
; LEN and RW of breakpoint 0 in DR7, and G0.
%define DR7_0(rw, len) 0x402 | ((rw) << 16) | ((len) << 18)

TEST64 trap_flag_traps_after_each_instruction
    mov RESUME(xDB)
    pushfq
    or dword [rsp], 0x100
    popfq
.first:
    nop                             ; POPF itself is not trapped
.second:
    nop
.third:
    pushfq
    and dword [rsp], ~0x100
    popfq
.end:
    nop
    EXPECT [v_log + 4], .second
    EXPECT [v_log + 12], .third
    EXPECT [v_log], xDB
    EXPECT_BITS [v_dr6], 0x4000, 0x4000
    PASS

TEST64 pushf_under_trap_flag_shows_it
    mov RESUME(xDB)
    pushfq
    or dword [rsp], 0x100
    popfq
    pushfq
    pop rbx
    pushfq
    and dword [rsp], ~0x100
    popfq
    EXPECT_BITS ebx, 0x100, 0x100
    PASS

TEST64 trap_flag_and_rep_string_traps_after_each_iteration
    mov RESUME(xDB)
    mov edi, FREE
    mov ecx, 3
    pushfq
    or dword [rsp], 0x100
    popfq
.rep:
    rep stosb
.after:
    pushfq
    and dword [rsp], ~0x100
    popfq
    EXPECT [v_log + 4], .rep
    EXPECT [v_log + 12], .rep
    EXPECT [v_log + 20], .after
    PASS

TEST64 int_n_clears_trap_flag_before_the_handler
    SETVECTOR 0x31, KCODE64, .handler, 0x8e
    mov RESUME(xDB)
    pushfq
    or dword [rsp], 0x100
    popfq
    int 0x31
.after:
    nop
.next:
    pushfq
    and dword [rsp], ~0x100
    popfq
    EXPECT [v_log + 4], .next       ; nothing in the handler, IRET sets it after itself
    PASS
.handler:
    nop
    iretq

TEST64 instruction_breakpoint_is_a_fault
    SET_DR dr0, .at
    SET_DR dr7, DR7_0(0, 0)
    mov ebx, 1
    CATCH .caught
.at:
    mov ebx, 2
    FAIL
.caught:
    EXPECT [v_vec], xDB
    EXPECT [v_ip], .at
    EXPECT_BITS [v_dr6], 0xe00f, 1
    EXPECT_BITS [v_flags], 0x10000, 0 ; setting RF is the handler's business [SDM 3B 18.3.1.1]
    EXPECT ebx, 1
    PASS

TEST64 resume_flag_passes_the_breakpoint_once
    SET_DR dr0, .at
    SET_DR dr7, DR7_0(0, 0)
    mov RESUME(xDB)
    mov dword [v_set_rf], 1
    mov ecx, 2
.at:
    nop
    loop .at
    EXPECT [v_count], 2
    PASS

TEST64 instruction_breakpoint_is_the_first_byte_only
    SET_DR dr0, .at + 1
    SET_DR dr7, DR7_0(0, 0)
.at:
    mov ebx, 0x90909090
    PASS

TEST64 write_watch_traps_after_the_store
    SET_DR dr0, FREE + 4
    SET_DR dr7, DR7_0(1, 3)
    mov RESUME(xDB)
    mov [FREE], eax
    mov [FREE + 8], eax
    mov ebx, [FREE + 4]
    EXPECT [v_count], 0
    mov dword [FREE + 4], 0x77
.after:
    nop
    EXPECT [v_count], 1
    EXPECT [v_ip], .after
    EXPECT [FREE + 4], 0x77
    EXPECT_BITS [v_dr6], 0xf, 1
    mov byte [FREE + 7], 1
    EXPECT [v_count], 2
    mov [FREE + 1], rax             ; overlaps
    EXPECT [v_count], 3
    PASS

TEST64 read_write_watch
    SET_DR dr1, FREE
    SET_DR dr7, 0x408 | (3 << 20) | (1 << 22) ; G1, RW, 2 bytes
    mov RESUME(xDB)
    mov al, [FREE + 1]
    nop
    EXPECT [v_count], 1
    EXPECT_BITS [v_dr6], 0xf, 2
    mov al, [FREE + 2]
    nop
    EXPECT [v_count], 1
    inc byte [FREE]
    nop
    EXPECT [v_count], 2
    PASS

TEST64 eight_byte_watch
    SET_DR dr0, FREE
    SET_DR dr7, DR7_0(1, 2)
    mov RESUME(xDB)
    mov byte [FREE + 7], 1
    nop
    EXPECT [v_count], 1
    mov byte [FREE + 8], 1
    nop
    EXPECT [v_count], 1
    PASS

TEST64 watch_ignores_low_address_bits
    SET_DR dr0, FREE + 3            ; 4 bytes: counts as FREE
    SET_DR dr7, DR7_0(1, 3)
    mov RESUME(xDB)
    mov byte [FREE], 1
    nop
    EXPECT [v_count], 1
    mov byte [FREE + 4], 1
    nop
    EXPECT [v_count], 1
    PASS

TEST64 watch_sees_stack_and_string_accesses
    SET_DR dr0, FREE
    SET_DR dr7, DR7_0(1, 3)
    mov RESUME(xDB)
    mov rsp, FREE + 8
    push rax
    mov rsp, STACK0
    EXPECT [v_count], 1
    mov edi, FREE - 8
    mov ecx, 4
    rep stosd
    nop
    EXPECT [v_count], 2
    movups [FREE - 4], xmm0
    nop
    EXPECT [v_count], 3
    PASS

TEST64 disabled_breakpoints_do_nothing
    SET_DR dr0, FREE
    SET_DR dr7, 0x400 | (1 << 16) | (3 << 18)
    mov [FREE], eax
    nop
    EXPECT [v_count], 0
    PASS

TEST64 general_detect_catches_debug_register_access
    SET_DR dr7, 0x2400
    CATCH .caught
.at:
    mov rax, dr0
    FAIL
.caught:
    EXPECT [v_vec], xDB
    EXPECT [v_ip], .at
    EXPECT_BITS [v_dr6], 0x2000, 0x2000
    mov rax, dr7                    ; the handler's processor has cleared GD
    EXPECT_BITS eax, 0x2000, 0
    PASS

TEST64 dr6_and_dr7_fixed_bits
    SET_DR dr6, 0
    mov rax, dr6
    EXPECTQ rax, 0xffff0ff0
    SET_DR dr6, 0xffffffff
    mov rax, dr6
    EXPECTQ rax, 0xffffefff
    SET_DR dr7, 0
    mov rax, dr7
    EXPECTQ rax, 0x400
    mov rax, 0x100000000
    FAULTS xGP, 0, mov dr6, rax
    FAULTS xGP, 0, mov dr7, rax
    PASS

TEST64 dr4_and_dr5_are_aliases_without_de
    SET_DR dr7, 0x402
    db 0x0f, 0x21, 0xe8             ; MOV RAX, DR5
    EXPECTQ rax, 0x402
    SET_DR dr7, 0x400
    mov rax, cr4
    or eax, 8
    mov cr4, rax
    CATCH .caught
    db 0x0f, 0x21, 0xe8
    FAIL
.caught:
    EXPECT [v_vec], xUD
    PASS

TEST64 io_breakpoint_needs_de
    mov rax, cr4
    or eax, 8
    mov cr4, rax
    SET_DR dr2, 0xf4
    SET_DR dr7, 0x420 | (2 << 24)
    mov RESUME(xDB)
    out 0xf5, al
    EXPECT [v_count], 0
    in al, 0xf4
.after:
    nop
    EXPECT [v_count], 1
    EXPECT [v_ip], .after
    EXPECT_BITS [v_dr6], 0xf, 4
    PASS

TEST64 icebp_is_a_debug_trap
    CATCH .caught
    db 0xf1
.after:
    FAIL
.caught:
    EXPECT [v_vec], xDB
    EXPECT [v_ip], .after
    PASS

TEST64 mov_ss_holds_data_trap_for_one_instruction
    SET_DR dr0, FREE
    SET_DR dr7, DR7_0(3, 3)
    mov word [FREE - 2], 0
    mov RESUME(xDB)
    mov dword [FREE], KDATA
    nop
    mov dword [v_count], 0
    mov ss, [FREE]
    nop
.after:
    nop
    EXPECT [v_count], 1
    EXPECT [v_ip], .after
    PASS

TEST64 mov_ss_holds_single_step_for_one_instruction
    mov RESUME(xDB)
    mov ebx, KDATA
    pushfq
    or dword [rsp], 0x100
    popfq
    mov ss, bx
    nop
.after:
    pushfq
    and dword [rsp], ~0x100
    popfq
    EXPECT [v_log + 4], .after
    PASS

TEST64 data_watch_of_faulting_instruction_is_not_reported
    SET_DR dr0, FREE
    SET_DR dr7, DR7_0(3, 3)
    mov qword [PT + (FREE + 0x1000) / 512], 0
    invlpg [FREE + 0x1000]
    FAULTS xPF, 0, mov eax, [FREE + 0x1000]
    EXPECT [v_count], 1
    PASS

TEST64 breakpoint_comes_before_fetch_fault_of_opcode
    SET_DR dr0, .at
    SET_DR dr7, DR7_0(0, 0)
    CATCH .caught
.at:
    ud2
.caught:
    EXPECT [v_vec], xDB
    PASS

TEST32 debug_exceptions_in_32_bit_mode
    SET_DR dr0, .at
    SET_DR dr7, DR7_0(0, 0)
    CATCH .caught
.at:
    nop
    FAIL
.caught:
    EXPECT [v_vec], xDB
    EXPECT [v_ip], .at
    SET_DR dr7, 0x400
    mov RESUME(xDB)
    pushfd
    or dword [esp], 0x100
    popfd
    nop
.next:
    pushfd
    and dword [esp], ~0x100
    popfd
    EXPECT [v_log + 12], .next
    PASS

TEST16 single_step_in_real_mode
    mov RESUME(xDB)
    pushf
    pop ax
    or ax, 0x100
    push ax
    popf
    nop
.next:
    pushf
    pop ax
    and ax, 0xfeff
    push ax
    popf
    EXPECT [v_log + 4], .next
    PASS

TEST64 user_mode_mov_dr_is_gp
    USER
    USER_FAULTS xGP, 0, mov rax, dr0
    PASS

TEST64 popf_that_clears_trap_flag_is_trapped
    mov RESUME(xDB)
    pushfq
    pushfq
    or dword [rsp], 0x100
    popfq
    popfq                           ; TF was set when it began
.after:
    nop
    EXPECT [v_count], 1
    EXPECT [v_ip], .after
    PASS

TEST64 other_faults_push_rf
    CATCH .caught
    ud2
.caught:
    EXPECT_BITS [v_flags], 0x10000, 0x10000
    CATCH .trap
    int3
.trap:
    EXPECT_BITS [v_flags], 0x10000, 0
    PASS

TEST64 branch_breakpoint_at_target
    SET_DR dr3, .target
    SET_DR dr7, 0x480
    CATCH .caught
    jmp .target
    nop
.target:
    nop
    FAIL
.caught:
    EXPECT [v_ip], .target
    EXPECT_BITS [v_dr6], 0xf, 8
    PASS

TEST64 rep_string_with_breakpoint_and_rf_breaks_once
    mov RESUME(xDB)
    mov dword [v_set_rf], 1
    SET_DR dr0, .at
    SET_DR dr7, DR7_0(0, 0)
    mov edi, FREE
    mov ecx, 5
.at:
    rep stosb                       ; RF holds until the whole instruction is done [SDM 3B 18.3.1.1]
    EXPECT ecx, 0
    EXPECT [v_count], 1
    PASS

TEST64 rf_survives_a_fault_of_the_instruction
    mov RESUME(xPF)
    mov qword [PT + FREE / 512], 0
    SET_DR dr0, .at
    SET_DR dr7, DR7_0(0, 0)
    SETVECTOR xPF, KCODE64, .handler, 0x8e
    push KDATA
    push STACK0
    push 0x10002                    ; RF: pass the breakpoint
    push KCODE64
    push .at
    iretq
.at:
    mov eax, [FREE]                 ; #PF pushes RF, so that its repetition passes too
    EXPECT [v_count], 0
    PASS
.handler:
    mov qword [PT + FREE / 512], FREE | 7
    add rsp, 8
    iretq

TEST64 fault_under_trap_flag_is_not_a_trap
    mov dword [v_resume], 1 << xDB
    SETVECTOR xUD, KCODE64, .handler, 0x8e
    pushfq
    or dword [rsp], 0x100
    popfq
.at:
    ud2
.next:
    nop
.after:
    pushfq
    and dword [rsp], ~0x100
    popfq
    EXPECT [v_log + 4], .after      ; the handler skipped the UD2 and returned with TF
    PASS
.handler:
    add qword [rsp], 2
    iretq

TEST64 breakpoint_on_the_second_of_two_instructions_in_a_row
    SET_DR dr0, .second
    SET_DR dr1, .second
    SET_DR dr7, 0x40a
    CATCH .caught
    nop
.second:
    nop
    FAIL
.caught:
    EXPECT [v_ip], .second
    EXPECT_BITS [v_dr6], 0xf, 3     ; both match
    PASS

TEST64 enabled_write_watch_reports_disabled_matches_too
    SET_DR dr0, FREE
    SET_DR dr7, DR7_0(1, 0)
    mov RESUME(xDB)
    SET_DR dr6, 0xffff0ff0
    mov byte [FREE], 1
    nop
    EXPECT_BITS [v_dr6], 0xf, 1
    mov rax, dr6
    EXPECT_BITS eax, 0xf, 1         ; the processor never clears them
    PASS

TEST64 watch_on_page_table_is_not_for_the_walker
    SET_DR dr0, PT + FREE / 512
    SET_DR dr7, DR7_0(3, 2)
    invlpg [FREE]
    mov eax, [FREE]                 ; the walk reads and writes the entry, no instruction does
    nop
    EXPECT [v_count], 0
    PASS

TEST64 watch_sees_every_kind_of_store
    SET_DR dr0, FREE
    SET_DR dr7, DR7_0(1, 2)
    mov RESUME(xDB)
    inc dword [FREE]
    nop
    EXPECT [v_count], 1
    lock xadd [FREE + 4], eax
    nop
    EXPECT [v_count], 2
    xchg [FREE + 7], cl
    nop
    EXPECT [v_count], 3
    fninit
    fst qword [FREE]
    nop
    EXPECT [v_count], 4
    movq [FREE], xmm0
    nop
    EXPECT [v_count], 5
    sgdt [FREE - 8]
    nop
    EXPECT [v_count], 6
    setc [FREE + 3]
    nop
    EXPECT [v_count], 7
    PASS

TEST64 watch_stops_a_rep_in_the_middle
    SET_DR dr0, FREE + 4
    SET_DR dr7, DR7_0(1, 3)
    mov RESUME(xDB)
    mov edi, FREE
    mov ecx, 16
.rep:
    rep stosb
    nop
    EXPECT ecx, 0
    cmp dword [v_count], 1          ; at least once; after the iteration, or later [SDM 3B 18.2.4]
    EXPECT_IF ae
    PASS
