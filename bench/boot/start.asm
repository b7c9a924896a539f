; The guest of bench_start: its first instructions write a byte to the serial port, and it waits to be ended.
%include "elf.inc"
pvh_entry:
    mov dx, 0x3f8
    mov al, '!'
    out dx, al
.wait:
    cli
    hlt
    jmp .wait
%include "end.inc"
