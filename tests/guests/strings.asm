; String instructions: address sizes, direction, overlap, faults in the middle. [SDM 2A REP, MOVS], [APM 3]
%include "guest.inc"

TEST64 rep_with_count_zero_does_nothing
    xor ecx, ecx
    mov rsi, 0x800000000000         ; not even an address check
    mov rdi, rsi
    rep movsb
    rep stosq
    EXPECTQ rdi, 0x800000000000
    cmp ecx, 1                      ; flags: CF
    repe cmpsb
    EXPECT_IF b
    PASS

TEST64 overlapping_copy_forward_repeats_the_pattern
    mov dword [FREE], 0x04030201
    mov esi, FREE
    mov edi, FREE + 1
    mov ecx, 100
    rep movsb
    EXPECT [FREE], 0x01010101
    EXPECTB [FREE + 100], 1
    mov dword [FREE], 0x04030201
    mov esi, FREE
    mov edi, FREE + 3
    mov ecx, 30
    rep movsb
    EXPECT [FREE], 0x01030201
    EXPECT [FREE + 28], 0x02010302
    PASS

TEST64 overlapping_copy_of_words_forward
    mov rax, 0x0807060504030201
    mov [FREE], rax
    mov esi, FREE
    mov edi, FREE + 2
    mov ecx, 8
    rep movsd                       ; distance below the element size
    mov esi, FREE
    EXPECT [FREE], 0x02010201
    EXPECT [FREE + 8], 0x08070807
    PASS

TEST64 overlapping_copy_backward_moves_the_block
    mov rax, 0x0807060504030201
    mov [FREE], rax
    mov esi, FREE + 7
    mov edi, FREE + 9
    mov ecx, 8
    std
    rep movsb
    cld
    EXPECTQ [FREE + 2], rax
    EXPECTQ rsi, FREE - 1
    EXPECTQ rdi, FREE + 1
    PASS

TEST64 copy_across_remapped_pages
    ; three pages side by side that lie apart
    mov qword [PT + FREE / 512], HIGH_FREE | 7
    mov qword [PT + (FREE + 0x1000) / 512], (HIGH_FREE + 0x8000) | 7
    mov qword [PT + (FREE + 0x2000) / 512], (HIGH_FREE + 0x4000) | 7
    mov rax, cr3
    mov cr3, rax
    mov edi, FREE + 0xff0
    mov eax, 0x12345678
    mov ecx, 0x1020 / 4
    rep stosd
    EXPECT [HIGH_FREE + 0xff0], 0x12345678
    EXPECT [HIGH_FREE + 0x8000], 0x12345678
    EXPECT [HIGH_FREE + 0x8ffc], 0x12345678
    EXPECT [HIGH_FREE + 0x400c], 0x12345678
    EXPECT [HIGH_FREE + 0x4010], 0
    mov esi, FREE + 0xff1
    mov edi, FREE + 0x3000
    mov ecx, 0x101f
    rep movsb
    EXPECT [FREE + 0x3000], 0x78123456
    EXPECTB [FREE + 0x3000 + 0x101e], 0x12
    PASS

TEST64 backward_copy_stops_at_the_faulting_page
    mov qword [PT + FREE / 512], 0
    mov esi, HIGH_FREE + 0x100
    mov edi, FREE + 0x1003
    mov ecx, 16
    std
    CATCH .caught
    rep movsb
    FAIL
.caught:
    cld
    EXPECT [v_vec], xPF
    EXPECT [v_err], 2
    EXPECTQ [v_cr2], FREE + 0xfff
    EXPECT ecx, 12
    EXPECTQ rdi, FREE + 0xfff
    EXPECT_BITS [v_flags], 0x10400, 0x10400
    PASS

TEST64 source_fault_reports_the_source
    mov qword [PT + (FREE + 0x1000) / 512], 0
    mov esi, FREE + 0xffe
    mov edi, HIGH_FREE
    mov ecx, 4
    FAULTS xPF, 0, rep movsb
    EXPECTQ [v_cr2], FREE + 0x1000
    EXPECT ecx, 2
    EXPECT esi, FREE + 0x1000
    EXPECT edi, HIGH_FREE + 2
    PASS

TEST64 element_across_the_bad_page_is_not_written
    mov qword [PT + (FREE + 0x1000) / 512], 0
    mov qword [FREE + 0xff8], 0
    mov edi, FREE + 0xff4
    mov ecx, 3
    mov rax, -1
    FAULTS xPF, 2, rep stosq        ; the second of them crosses
    EXPECT ecx, 2
    EXPECTQ rdi, FREE + 0xffc
    EXPECT [FREE + 0xffc], 0
    PASS

TEST64 scas_and_cmps_stop_by_flag
    mov edi, .text
    mov al, 'x'
    mov ecx, 100
    repne scasb
    EXPECT_IF z
    EXPECT edi, .text + 4
    EXPECT ecx, 96
    mov esi, .text
    mov edi, .text2
    mov ecx, 10
    repe cmpsb
    EXPECT_IF nz
    EXPECT ecx, 4
    EXPECT esi, .text + 6
    mov edi, .text
    mov al, 'y'
    mov ecx, 3
    repne scasb
    EXPECT_IF nz
    EXPECT ecx, 0
    PASS
.text:
    db "abcxefghij"
.text2:
    db "abcxeZghij"

TEST64 scas_fault_keeps_flags_of_the_last_element
    mov qword [PT + (FREE + 0x1000) / 512], 0
    mov word [FREE + 0xffe], 0x0101
    mov edi, FREE + 0xffe
    mov al, 1
    mov ecx, 5
    FAULTS xPF, 0, repe scasb
    EXPECT ecx, 3
    EXPECT edi, FREE + 0x1000
    PASS

TEST64 lods_repeated_leaves_the_last
    mov esi, .text
    mov ecx, 4
    rep lodsb
    EXPECTB al, 'd'
    EXPECT esi, .text + 4
    PASS
.text:
    db "abcd"

TEST64 repne_movs_repeats_like_rep
    mov dword [v_user], 0x44332211
    mov esi, v_user
    mov edi, v_user + 8
    mov ecx, 4
    repne movsb
    EXPECT ecx, 0
    EXPECT [v_user + 8], 0x44332211
    PASS

TEST64 movs_takes_override_for_the_source_only
    mov ecx, 0xc0000100
    mov eax, FREE
    xor edx, edx
    wrmsr
    mov dword [FREE + v_user], 0x77
    mov dword [v_user], 0x11
    mov esi, v_user
    mov edi, v_user + 16
    fs movsd
    EXPECT [v_user + 16], 0x77
    PASS

TEST64 stos_of_a_large_area
    mov edi, 0x400000
    mov ecx, 0x300000 / 8
    mov rax, 0x1122334455667788
    rep stosq
    EXPECTQ [0x400000], rax
    EXPECTQ [0x6ffff8], rax
    EXPECTQ [0x700000], 0
    EXPECTQ rdi, 0x700000
    PASS

TEST64 movs_32_bit_addresses_wrap
    mov rsi, 0xffffffff00000000 + v_user
    mov rdi, 0x7777777700000000 + v_user + 8
    mov rcx, 0x1111111100000002
    mov dword [v_user], 0x12345678
    a32 rep movsb
    EXPECTQ rcx, 0
    EXPECTQ rsi, v_user + 2
    EXPECTW [v_user + 8], 0x5678
    PASS

TEST64 single_movs_with_32_bit_addresses_clears_upper_halves
    mov rsi, 0xffffffff00000000 + v_user
    mov rdi, 0x7777777700000000 + v_user + 8
    a32 movsb
    EXPECTQ rsi, v_user + 1
    EXPECTQ rdi, v_user + 9
    PASS

TEST32 string_instructions_check_es_limit
    SETDESC SPARE, FREE, 0xf, 0x93, 4
    mov ax, SPARE
    mov es, ax
    mov edi, 8
    mov ecx, 16
    mov al, 1
    FAULTS xGP, 0, rep stosb
    EXPECT ecx, 8
    EXPECT edi, 16
    EXPECTB [FREE + 15], 1
    PASS

TEST32 read_only_es_faults_for_stos_only
    SETDESC SPARE, 0, 0xfffff, 0x91, 0xc
    mov ax, SPARE
    mov es, ax
    mov edi, v_user
    mov eax, 0
    FAULTS xGP, 0, stosd
    scasd
    EXPECT edi, v_user + 4
    PASS

TEST32 address_size_16_in_32_bit_code
    mov esi, 0x12340000 + v_user
    mov edi, 0x56780000 + v_user + 8
    mov ecx, 0xabcd0003
    mov dword [v_user], 0x00aabbcc
    a16 rep movsb
    EXPECT ecx, 0xabcd0000
    EXPECT esi, 0x12340000 + v_user + 3
    EXPECT edi, 0x56780000 + v_user + 11
    EXPECT [v_user + 8], 0x00aabbcc
    PASS

TEST16 address_size_32_in_16_bit_code
    mov dword [v_user], 0x44332211
    mov esi, v_user
    mov edi, v_user + 8
    mov ecx, 2
    a32 rep movsw
    EXPECT ecx, 0
    EXPECT [v_user + 8], 0x44332211
    mov edi, 0x10000
    mov ecx, 1
    CATCH .caught
    a32 rep stosb
    FAIL
.caught:
    EXPECT [v_vec], xGP
    PASS

TEST16 word_stos_at_ffff_is_gp
    mov ax, 0x4000
    mov es, ax
    mov di, 0xfffd
    mov cx, 4
    FAULTS xGP, NO_ERROR, rep stosw
    EXPECTW cx, 3
    EXPECTW di, 0xffff
    PASS

TEST16 xlat_and_its_segment
    mov ax, FREE >> 4
    mov es, ax
    mov byte [es:v_user + 5], 0x99
    mov byte [v_user + 5], 0x11
    mov bx, v_user
    mov al, 5
    xlatb
    EXPECTB al, 0x11
    mov al, 5
    es xlatb
    EXPECTB al, 0x99
    PASS

TEST64 loop_and_jrcxz_use_the_address_size
    mov rcx, 0x100000000
    jrcxz .bad
    jecxz .good
.bad:
    FAIL
.good:
    mov rcx, 0x100000001
    loop .more
    FAIL
.more:
    EXPECTQ rcx, 0x100000000
    mov rcx, 0x100000001
    a32 loop .bad
    EXPECTQ rcx, 0
    PASS
