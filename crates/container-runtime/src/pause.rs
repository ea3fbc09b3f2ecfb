//! The sandbox image: one static program of a few dozen instructions that holds a pod's namespaces.
//!
//! As process 1 of a shared process namespace it reaps orphans; it ends on SIGINT and SIGTERM. It takes signals by
//! waiting for them (`rt_sigtimedwait` over a blocked set) rather than by handlers: a blocked signal reaches process 1
//! even without one, and no signal can slip between the check and the wait.

use crate::archive::{Archive, Entry};

/// The name under which containerd knows it; never pulled, always imported.
pub const IMAGE: &str = "timonel.dev/pause:1";

/// One instruction: its bytes, for the reader its text.
type Instruction = (&'static [u8], &'static str);

/// x86-64. Jumps are relative; the test checks that each lands on an instruction.
const PROGRAM: &[Instruction] = &[
    (&[0x68, 0x02, 0x40, 0x01, 0x00], "push 0x14002            ; the set: SIGINT 2, SIGTERM 15, SIGCHLD 17"),
    (&[0xb8, 0x0e, 0x00, 0x00, 0x00], "mov eax, 14             ; rt_sigprocmask("),
    (&[0x31, 0xff], "xor edi, edi            ;   SIG_BLOCK,"),
    (&[0x48, 0x89, 0xe6], "mov rsi, rsp            ;   &set,"),
    (&[0x31, 0xd2], "xor edx, edx            ;   NULL,"),
    (&[0x41, 0xba, 0x08, 0x00, 0x00, 0x00], "mov r10d, 8             ;   8 bytes)"),
    (&[0x0f, 0x05], "syscall"),
    // reap, at 25:
    (&[0xb8, 0x3d, 0x00, 0x00, 0x00], "mov eax, 61             ; wait4("),
    (&[0x48, 0xc7, 0xc7, 0xff, 0xff, 0xff, 0xff], "mov rdi, -1             ;   any child,"),
    (&[0x31, 0xf6], "xor esi, esi            ;   NULL,"),
    (&[0xba, 0x01, 0x00, 0x00, 0x00], "mov edx, 1              ;   WNOHANG,"),
    (&[0x4d, 0x31, 0xd2], "xor r10, r10            ;   NULL)"),
    (&[0x0f, 0x05], "syscall"),
    (&[0x85, 0xc0], "test eax, eax"),
    (&[0x7f, 0xe4], "jg reap                 ; one was reaped: look for another"),
    // wait, at 53:
    (&[0xb8, 0x80, 0x00, 0x00, 0x00], "mov eax, 128            ; rt_sigtimedwait("),
    (&[0x48, 0x89, 0xe7], "mov rdi, rsp            ;   &set,"),
    (&[0x31, 0xf6], "xor esi, esi            ;   NULL,"),
    (&[0x31, 0xd2], "xor edx, edx            ;   no timeout,"),
    (&[0x41, 0xba, 0x08, 0x00, 0x00, 0x00], "mov r10d, 8             ;   8 bytes)"),
    (&[0x0f, 0x05], "syscall"),
    (&[0x83, 0xf8, 0x11], "cmp eax, 17             ; SIGCHLD"),
    (&[0x74, 0xcb], "je reap"),
    (&[0x83, 0xf8, 0x02], "cmp eax, 2              ; SIGINT"),
    (&[0x74, 0x07], "je end"),
    (&[0x83, 0xf8, 0x0f], "cmp eax, 15             ; SIGTERM"),
    (&[0x74, 0x02], "je end"),
    (&[0xeb, 0xdb], "jmp wait"),
    // end, at 90:
    (&[0xb8, 0x3c, 0x00, 0x00, 0x00], "mov eax, 60             ; exit("),
    (&[0x31, 0xff], "xor edi, edi            ;   0)"),
    (&[0x0f, 0x05], "syscall"),
];

const HEADER: usize = 64 + 56;
const BASE: u64 = 0x40_0000;

/// The program as an ELF file with one segment.
pub fn program() -> Vec<u8> {
    let code: Vec<u8> = PROGRAM.iter().flat_map(|(bytes, _)| bytes.iter().copied()).collect();
    let size = (HEADER + code.len()) as u64;
    let mut elf = Vec::with_capacity(size as usize);
    elf.extend_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    elf.extend_from_slice(&2u16.to_le_bytes()); // an executable
    elf.extend_from_slice(&62u16.to_le_bytes()); // for x86-64
    elf.extend_from_slice(&1u32.to_le_bytes());
    elf.extend_from_slice(&(BASE + HEADER as u64).to_le_bytes()); // entry
    elf.extend_from_slice(&64u64.to_le_bytes()); // program headers follow this one
    elf.extend_from_slice(&0u64.to_le_bytes()); // no sections
    elf.extend_from_slice(&0u32.to_le_bytes());
    for half in [64u16, 56, 1, 0, 0, 0] {
        elf.extend_from_slice(&half.to_le_bytes());
    }
    elf.extend_from_slice(&1u32.to_le_bytes()); // PT_LOAD
    elf.extend_from_slice(&5u32.to_le_bytes()); // readable, executable
    for word in [0, BASE, BASE, size, size, 0x1000] {
        elf.extend_from_slice(&word.to_le_bytes());
    }
    elf.extend_from_slice(&code);
    elf
}

/// The image, as an OCI archive to import.
pub fn archive() -> Vec<u8> {
    Archive {
        name: IMAGE.into(),
        entries: vec![Entry::file("pause", 0o755, program())],
        entrypoint: vec!["/pause".into()],
        user: "65535:65535".into(),
        ..Archive::default()
    }
    .to_tar()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_jump_lands_on_an_instruction() {
        let mut starts = vec![];
        let mut at = 0;
        for (bytes, _) in PROGRAM {
            starts.push(at);
            at += bytes.len();
        }
        for ((bytes, text), start) in PROGRAM.iter().zip(&starts) {
            if text.starts_with('j') {
                let target = (*start + bytes.len()) as i64 + i64::from(bytes[1] as i8);
                let expected = match text.split_whitespace().nth(1) {
                    Some("reap") => 25,
                    Some("wait") => 53,
                    _ => 90,
                };
                assert_eq!(target, expected, "{text}");
                assert!(starts.contains(&(target as usize)), "{text}");
            }
        }
    }

    #[test]
    fn it_runs_and_ends_on_sigterm() {
        use std::os::unix::fs::PermissionsExt;
        use std::os::unix::process::ExitStatusExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pause");
        std::fs::write(&path, program()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut child = std::process::Command::new(&path).spawn().unwrap();
        // SIGTERM before its first instruction would kill it by default: wait until it waits, in rt_sigtimedwait.
        let call = format!("/proc/{}/syscall", child.id());
        while !std::fs::read_to_string(&call).unwrap().starts_with("128 ") {
            assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
            std::thread::yield_now();
        }
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::SIGTERM)
            .unwrap();
        let status = child.wait().unwrap();
        assert_eq!((status.code(), status.signal()), (Some(0), None));
    }
}
