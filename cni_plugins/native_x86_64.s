# The thin start of cni_plugins/start.py as machine code: an executable that asks the service ends before an interpreter
# would have begun. Where there is no service, or anything else is to be decided, it becomes `python -IS -c ...`.
# Assembled into native_code.py:  as -o x.o native_x86_64.s && objcopy -O binary -j .text x.o x.bin
# What differs between executables follows the code: the parameters (native.py). Linux, x86-64, System V ABI.
.intel_syntax noprefix

.set READ, 0; .set WRITE, 1; .set OPEN, 2; .set LSEEK, 8; .set DUP2, 33; .set SOCKET, 41; .set CONNECT, 42
.set SENDMSG, 46; .set SHUTDOWN, 48; .set SETSOCKOPT, 54; .set EXECVE, 59; .set UMASK, 95; .set EXIT_GROUP, 231; .set MEMFD_CREATE, 319
.set CLOEXEC, 0x80000; .set O_PATH, 0x200000; .set NOSIGNAL, 0x4000
.set RCVTIMEO, 20; .set SNDTIMEO, 21; .set EINTR, 4; .set EAGAIN, 11

# memory that begins as zeroes
.set TEXT, 0x10000000            # the configuration
.set REPLY, 0x10800000           # '+', status (4 bytes), length (4 bytes), output, what goes to standard error
.set SCRATCH, 0x11000000
.set LARGEST, 0x800000

# offsets of the parameters
.set ADDRESS_LENGTH, 0; .set ADDRESS, 8; .set PREFIX, 128; .set PREFIX_LENGTH, 136; .set PYTHON, 144
.set PLAIN, 152; .set DIED, 160; .set ALONE, 168; .set PATHS, 176
.set HUNG, 184; .set TAKING, 192; .set ANSWERING, 208

# rbx: parameters; rbp: environment; r12: what CNI_COMMAND said; r13: end of the environment; r14: connection; r15: length of text
.globl _start
_start:
    lea rbx, [rip + parameters]
    mov rcx, [rsp]
    lea rbp, [rsp + rcx * 8 + 16]
    xor r12d, r12d
    xor r13d, r13d

# -- the environment: who must decide, and where it ends
    mov rsi, rbp
environment:
    mov rdi, [rsi]
    test rdi, rdi
    jz environment_read
    add rsi, 8
    mov r13, rdi
    mov rax, [rdi]
    movabs rdx, 0x435f544556495254   # TRIVET_C
    cmp rax, rdx
    je plain
    movabs rdx, 0x465f544556495254   # TRIVET_F
    cmp rax, rdx
    je plain
    movabs rdx, 0x4d4d4f435f494e43   # CNI_COMM
    cmp rax, rdx
    jne environment
    cmp dword ptr [rdi + 8], 0x3d444e41   # AND=
    jne environment
    mov r12, [rdi + 12]
    jmp environment
environment_read:
    test r12b, r12b
    jz plain                         # no command: help, or an error
end_of_last:
    inc r13
    cmp byte ptr [r13 - 1], 0
    jne end_of_last

# -- the configuration; VERSION has none
    xor r15d, r15d
    cmp r12d, 0x53524556             # VERS
    je text_read
text:
    xor edi, edi
    lea rsi, [r15 + TEXT]
    mov edx, LARGEST
    sub rdx, r15
    xor eax, eax
    syscall
    test rax, rax
    jle text_read
    add r15, rax
    jmp text
text_read:

# -- the service
    mov edi, 1
    mov esi, 1 | CLOEXEC
    xor edx, edx
    mov eax, SOCKET
    syscall
    mov r14, rax
    test rax, rax
    js nobody
    lea r10, [rbx + TAKING]
    mov edx, RCVTIMEO
    call wait_at_most
    mov edx, SNDTIMEO                # for a connection, too
    call wait_at_most
    mov edi, r14d
    lea rsi, [rbx + ADDRESS]
    mov edx, [rbx + ADDRESS_LENGTH]
    mov eax, CONNECT
    syscall
    cmp rax, -EAGAIN
    je alone
    test rax, rax
    js nobody

# -- descriptors: network and mount namespace, root, working directory
    mov r12d, SCRATCH
    mov qword ptr [r12], 32          # cmsghdr: length, SOL_SOCKET, SCM_RIGHTS
    mov dword ptr [r12 + 8], 1
    mov dword ptr [r12 + 12], 1
    xor ecx, ecx
descriptor:
    mov r8, [rbx + PATHS]            # pairs of path and flags
    shl ecx, 4
    mov rdi, [r8 + rcx]
    mov rsi, [r8 + rcx + 8]
    shr ecx, 4
    push rcx
    mov eax, OPEN
    syscall
    pop rcx
    test rax, rax
    js alone
    mov [r12 + 16 + rcx * 4], eax
    inc ecx
    cmp ecx, 4
    jne descriptor

# -- the umask in three octal digits
    xor edi, edi
    mov eax, UMASK
    syscall
    mov edi, eax
    mov r9d, eax
    mov eax, UMASK
    syscall
    lea rdi, [r12 + 64]
    mov ecx, 6
digit:
    mov eax, r9d
    shr eax, cl
    and eax, 7
    add eax, 48
    mov [rdi], al
    inc rdi
    sub ecx, 3
    jns digit
    mov byte ptr [rdi], 0

# -- the request: prefix, umask, environment, an empty string, text
    lea r8, [r12 + 128]              # iovec
    mov rax, [rbx + PREFIX]
    mov [r8], rax
    mov rax, [rbx + PREFIX_LENGTH]
    mov [r8 + 8], rax
    lea rax, [r12 + 64]
    mov [r8 + 16], rax
    mov qword ptr [r8 + 24], 4
    mov rax, [rbp]
    mov [r8 + 32], rax
    sub r13, rax
    mov [r8 + 40], r13
    lea rax, [r12 + 67]
    mov [r8 + 48], rax
    mov qword ptr [r8 + 56], 1
    mov qword ptr [r8 + 64], TEXT
    mov [r8 + 72], r15
    lea rsi, [r12 + 256]             # msghdr
    mov [rsi + 16], r8
    mov qword ptr [rsi + 24], 5
    mov [rsi + 32], r12
    mov qword ptr [rsi + 40], 32
    lea r9, [r13 + r15 + 5]          # all of it
    add r9, [rbx + PREFIX_LENGTH]
    mov edi, r14d
    mov edx, NOSIGNAL
    mov eax, SENDMSG
    syscall
    test rax, rax
    js alone
    cmp rax, r9
    jne not_taken
    mov edi, r14d
    mov esi, 1
    mov eax, SHUTDOWN
    syscall

# -- the answer
    xor r13d, r13d
reply:
    mov edi, r14d
    lea rsi, [r13 + REPLY]
    mov edx, LARGEST
    sub rdx, r13
    xor eax, eax
    syscall
    cmp rax, -EINTR                  # by a stop, since there is a time limit
    je reply
    cmp rax, -EAGAIN
    je late
    test rax, rax
    jle reply_read
    test r13, r13
    jnz more
    push rax                         # the first is '+': from now on the plugin's time counts
    lea r10, [rbx + ANSWERING]
    mov edx, RCVTIMEO
    call wait_at_most
    pop rax
more:
    add r13, rax
    jmp reply
late:
    test r13, r13
    jnz hung
not_taken:                           # nor can it be any more: whoever takes it says so first, and cannot say it now
    mov edi, r14d
    xor esi, esi
    mov eax, SHUTDOWN
    syscall
    mov edi, r14d
    mov esi, REPLY
    mov edx, 1
    xor eax, eax
    syscall
    test rax, rax
    jle alone
hung:
    mov r12, [rbx + HUNG]
    jmp put_back
reply_read:
    test r13, r13
    jz alone                         # nothing has been done
    mov r12d, REPLY
    cmp r13, 9
    jb died
    mov r8d, [r12 + 5]
    lea rax, [r8 + 9]
    cmp rax, r13
    ja died
    mov ebp, [r12 + 1]
    cmp ebp, -1
    je alone_by_service
    add r12, 9
    lea r14, [r12 + r8]
    lea r15, [r13 + REPLY]
    mov edi, 1
    call write_all
    mov r12, r14
    mov r8, r15
    sub r8, r14
    mov edi, 2
    call write_all
end:
    mov edi, ebp
    mov eax, EXIT_GROUP
    syscall

# -- Python: as it stands, or with the configuration that was read put back
plain:
    mov rsi, [rbx + PLAIN]
    jmp become
nobody:
    mov r12, [rbx + PLAIN]
    jmp put_back
alone_by_service:
    mov rcx, [rsp]
    lea rbp, [rsp + rcx * 8 + 16]
alone:
    mov r12, [rbx + ALONE]
    jmp put_back
died:
    mov r12, [rbx + DIED]
put_back:
    lea rdi, [rbx + ADDRESS + 2]     # any name will do
    mov esi, 1
    mov eax, MEMFD_CREATE
    syscall
    mov r14, rax
    mov r13d, TEXT
put:
    test r15, r15
    jz put_all
    mov edi, r14d
    mov rsi, r13
    mov rdx, r15
    mov eax, WRITE
    syscall
    test rax, rax
    jle put_all
    add r13, rax
    sub r15, rax
    jmp put
put_all:
    mov edi, r14d
    xor esi, esi
    xor edx, edx
    mov eax, LSEEK
    syscall
    mov edi, r14d
    xor esi, esi
    mov eax, DUP2
    syscall
    mov rsi, r12
become:
    mov rdi, [rbx + PYTHON]
    mov rdx, rbp
    mov eax, EXECVE
    syscall
    mov ebp, 127
    jmp end

# edi: where to; r12: from where, r8: how many bytes
write_all:
    mov rsi, r12
    mov rdx, r8
    mov eax, WRITE
    syscall
    test rax, rax
    jle written
    add r12, rax
    sub r8, rax
    jnz write_all
written:
    ret

# edx: the option of the connection that takes the time at r10
wait_at_most:
    mov edi, r14d
    mov esi, 1
    mov r8d, 16
    mov eax, SETSOCKOPT
    syscall
    ret
.balign 8
parameters:
