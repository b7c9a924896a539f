"""Writes a C program of some thousand lines, always the same for the same size: food for the compilers in the guest.

Nothing for a preprocessor to do; printf is declared by hand. The program prints one checksum.
"""
import random

HEAD = """\
typedef unsigned long long u64;
typedef unsigned int u32;
int printf(const char *, ...);
struct item { u32 key; short weight; u64 sum; struct item *next; };
static struct item pool[64];
static unsigned char bytes[256];
static double factors[16];
"""

ENTRY = """\
int main(void)
{
    u64 sum = 1;
    int i;
    for (i = 0; i < 256; i++)
        bytes[i] = (unsigned char)(i * 7 + 3);
    for (i = 0; i < 16; i++)
        factors[i] = 1.0 + i / 8.0;
    for (i = 0; i < 64; i++) {
        pool[i].key = i * 2654435761u;
        pool[i].weight = (short)(i - 32);
        pool[i].sum = i;
        pool[i].next = &pool[(i * 5 + 1) % 64];
    }
    for (i = 0; i < 20; i++) {
        unsigned int k;
        for (k = 0; k < sizeof all / sizeof *all; k++)
            sum = all[k](sum + i) * 0x9fb21c651e98df25ull + (sum >> 29);
    }
    printf("%016llx\\n", sum);
    return 0;
}
"""


def arithmetic(name, pick, number):
    steps = "\n".join(f"        x {pick.choice(['+=', '^=', '-='])} (y {pick.choice(['<<', '>>'])} {pick.randint(1, 31)}) "
                      f"{pick.choice('+^|&')} {number()}u;\n"
                      f"        y = y * {number() | 1}ull + x;" for _ in range(pick.randint(3, 8)))
    return f"""static u64 {name}(u64 x)
{{
    u64 y = {number()}u;
    int i;
    for (i = 0; i < {pick.randint(3, 20)}; i++) {{
{steps}
        if (x % {pick.randint(3, 17)} == {pick.randint(0, 2)})
            y ^= x;
    }}
    return x ^ y;
}}
"""


def choice(name, pick, number):
    count = pick.randint(5, 14)
    cases = "\n".join(f"        case {i}: x {pick.choice(['+=', '^=', '*='])} {number()}u | 1; "
                      f"{pick.choice(['break', 'i++; break', 'x ^= x >> 7; break'])};" for i in range(count))
    return f"""static u64 {name}(u64 x)
{{
    int i;
    for (i = 0; i < {pick.randint(10, 40)}; i++) {{
        switch ((x >> {pick.randint(0, 50)}) % {count + 1}) {{
{cases}
        default: x = (x << 13) | (x >> 51); break;
        }}
    }}
    return x;
}}
"""


def listing(name, pick, number):
    return f"""static u64 {name}(u64 x)
{{
    struct item *at = &pool[x % 64];
    int i;
    for (i = 0; i < {pick.randint(5, 60)} && at; i++) {{
        at->sum += at->key ^ x;
        at->weight = (short)(at->weight * {pick.randint(3, 99)} + i);
        if (at->weight < {pick.randint(-500, 500)})
            at->key += {number()}u;
        else
            at->sum ^= (u64)at->weight << {pick.randint(1, 40)};
        x += at->sum >> {pick.randint(1, 20)};
        at = at->next;
    }}
    return x;
}}
"""


def floating(name, pick, number):
    terms = "\n".join(f"        y = y * factors[(i + {pick.randint(0, 15)}) & 15] + {pick.randint(1, 99)}.{pick.randint(1, 9)};"
                      for _ in range(pick.randint(2, 6)))
    return f"""static u64 {name}(u64 x)
{{
    double y = (double)(long long)(x & {pick.choice(['0xffff', '0xfffff', '0x3ff'])}) / {pick.randint(2, 9)};
    float z = (float)(int)(x & 255);
    int i;
    for (i = 0; i < {pick.randint(2, 12)}; i++) {{
{terms}
        z = z * 0.5f + (float)i;
        if (y > 1e6)
            y = y / 1048576.0 - z;
    }}
    return x + (u64)(long long)(y * 16.0) + (u64)(long long)z;
}}
"""


def text(name, pick, number):
    word = "".join(pick.choice("abcdefghijklmnopqrstuvwxyz ") for _ in range(pick.randint(8, 40)))
    return f"""static u64 {name}(u64 x)
{{
    const char *at = "{word}";
    u32 hash = (u32)x;
    while (*at) {{
        hash = (hash ^ (unsigned char)*at++) * 16777619u;
        bytes[hash & 255] ^= (unsigned char)(hash >> {pick.randint(8, 24)});
        if (bytes[(hash >> 8) & 255] > {pick.randint(10, 240)})
            hash += {number()}u;
    }}
    return x ^ ((u64)hash << {pick.randint(0, 32)});
}}
"""


def recursion(name, pick, number):
    return f"""static u64 {name}_step(u64 x, int depth)
{{
    if (depth <= 0 || x % {pick.randint(50, 90)} == 0)
        return x * {number() | 1}ull;
    return {name}_step(x >> 1, depth - 1) + {name}_step(x ^ {number()}u, depth - {pick.randint(2, 3)});
}}
static u64 {name}(u64 x)
{{
    return {name}_step(x, {pick.randint(5, 9)});
}}
"""


def write(functions, seed=1):
    """The source with so many functions, about 15 lines each."""
    pick = random.Random(seed)
    kinds = [arithmetic, choice, listing, floating, text, recursion]
    names = [f"work_{i}" for i in range(functions)]
    bodies = [pick.choice(kinds)(name, pick, lambda: pick.randint(1, 0x7fffffff)) for name in names]
    table = "static u64 (*const all[])(u64) = {\n" + "".join(f"    {name},\n" for name in names) + "};\n"
    return HEAD + "\n".join(bodies) + table + ENTRY
