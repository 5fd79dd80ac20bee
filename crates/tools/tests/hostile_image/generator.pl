#!/usr/bin/perl
# SPDX-License-Identifier: AGPL-3.0-or-later
# What a hostile image has in the place of its mkinitramfs or dracut. It tries to reach what is outside of
# the image and prints a line for each attempt: `hostile: NAME: refused`, or `hostile: NAME: reached HOW`.
# It ends as the true generator, where that is beside it as NAME.true. Only system calls of perl itself are
# used: perl-base is in every Debian.

$| = 1;
my ($EPERM, $ENOENT, $EACCES, $EROFS, $ENOSYS) = (1, 2, 13, 30, 38);
my $reached = 0;

sub told {
    my ($name, $how) = @_;
    $reached++ if defined $how;
    print "hostile: $name: ", (defined $how ? "reached $how" : "refused"), "\n";
}

# A system call whose other failures show that the kernel went past the question of privilege.
sub call {
    my ($name, $number, @arguments) = @_;
    my $result = syscall($number, @arguments);
    my $error = $! + 0;
    my $is_refused = $result == -1 && grep { $error == $_ } $EPERM, $EACCES, $ENOSYS;
    told($name, $is_refused ? undef : "result $result, errno $error");
    return $result;
}

sub can_write {
    my ($path, $text) = @_;
    my $how;
    if (open(my $file, '>', $path)) {
        my $count = syswrite($file, $text);
        $how = defined $count ? "wrote $count bytes" : "opened";
        close $file;
    }
    told("write $path", $how);
}

sub can_read {
    my ($path) = @_;
    my $how = -d $path ? 'a directory' : open(my $file, '<', $path) ? 'opened' : undef;
    told("read $path", $how);
}

# Knobs of the kernel. The values do no harm.
can_write('/proc/sys/kernel/core_pattern', 'shoal-hostile');
can_write('/proc/sys/kernel/modprobe', '/shoal-hostile');
can_write('/proc/sys/kernel/hostname', 'shoal-hostile');
can_write('/proc/sys/vm/drop_caches', '0');
can_write('/proc/sysrq-trigger', 'h');
can_write('/proc/sys/fs/binfmt_misc/register', ':shoal:E::shoal::/bin/false:');
can_write('/sys/kernel/uevent_helper', '');
can_write('/sys/power/state', '');
can_write('/sys/module/kernel/parameters/panic', '0');
can_write('/sys/firmware/efi/efivars/Shoal-12345678-1234-1234-1234-123456789abc', 'x');
can_write('/dev/kmsg', 'shoal-hostile');
can_write('/dev/mem', '');
can_write("/proc/$$/oom_score_adj", '-1000');
can_write('/sys/fs/cgroup/cgroup.procs', "$$");

# Mounts.
mkdir '/tmp/here';
my $null = 0;
for my $kind ('proc', 'sysfs', 'devtmpfs', 'tmpfs', 'cgroup2', 'binfmt_misc', 'mqueue') {
    call("mount $kind", 165, "$kind", '/tmp/here', "$kind", $null, $null);
}
call('mount bind', 165, '/', '/tmp/here', 'none', 0x1000, $null);
call('mount remount', 165, 'none', '/', 'none', 0x1000 | 0x20, $null);
call('umount', 166, '/proc', 2);
call('umount /', 166, '/', 2);
call('open_tree', 428, -100, '/', 1);
call('fsopen', 430, 'proc', 0);
call('pivot_root', 155, '/tmp', '/tmp/here');
call('chroot', 161, '/tmp');

# Namespaces. A new user namespace would give every privilege in itself.
for my $case (['user', 0x10000000], ['mount', 0x20000], ['net', 0x40000000], ['pid', 0x20000000]) {
    call("unshare $case->[0]", 272, $case->[1]);
}
my $clone = syscall(56, 0x10000000 | 17, 0, 0, 0, 0);
if ($clone == 0) { syscall(231, 0) }
told('clone user', $clone == -1 ? undef : 'a process');
call('clone3', 435, 0, 0);
for my $kind ('mnt', 'net', 'pid', 'user') {
    if (open(my $file, '<', "/proc/self/ns/$kind")) { call("setns $kind", 308, fileno($file), 0) }
}

# Devices.
for my $case (['sda', 8, 0], ['vda', 252, 0], ['vda', 254, 0], ['nvme0n1', 259, 0], ['loop0', 7, 0]) {
    my ($disk, $major, $minor) = @$case;
    call("mknod $disk $major:$minor", 133, "/tmp/$disk-$major", 0060600, $major << 8 | $minor);
    can_read("/tmp/$disk-$major");
    can_read("/dev/$disk");
}
call('mknod mem', 133, '/tmp/mem', 0020600, 1 << 8 | 1);
opendir(my $dev, '/dev');
for my $name (readdir $dev) {
    my $is_known = -l "/dev/$name" || grep { $name eq $_ } qw(null zero full random urandom tty);
    told("/dev/$name", 'a device') if !$is_known && (-b "/dev/$name" || -c "/dev/$name");
}

# Other processes: there is none but this one.
opendir(my $proc, '/proc');
for my $pid (grep { /^\d+$/ && $_ != $$ } readdir $proc) {
    told("process $pid", 'in /proc');
    can_read("/proc/$pid/root/run");
    can_read("/proc/$pid/environ");
}
can_read('/proc/kcore');
can_read('/proc/keys');
can_read('/proc/sys');
can_read('/proc/cmdline');
for my $pid (1, getppid()) {
    call("ptrace attach $pid", 101, 16, $pid, 0, 0);
    call("process_vm_readv $pid", 310, $pid, 0, 0, 0, 0, 0);
    call("pidfd_getfd $pid", 438, 3, 1, 0);
}
told('environment', (grep { /SHOAL|TASK_TARGET|OCI_URL/ } keys %ENV) ? join(' ', keys %ENV) : undef);
opendir(my $open, '/proc/self/fd');
for my $number (grep { /^\d+$/ && $_ > 2 } readdir $open) {
    my $file = readlink("/proc/self/fd/$number");
    # Directories, streams and files that this program opened itself are below these.
    told("open file $number", $file) if defined $file && $file !~ m{^/(proc|dev|usr|tmp)\b};
}

# What is ours in the container, and its sockets.
can_read($_) for '/run/provision', '/run/provision/recipe.json', '/run/provision/user-data',
    '/run/shoal/pull.json', '/shoal-tool', '/target', '/dev/shoal', '/run/containers', '/var/lib/containers/storage',
    '/tmp/../../../../../../run/provision';
for my $path ('/run/provision/agent.sock', "\0shoal-hostile", '/run/systemd/private', '/run/dbus/system_bus_socket') {
    socket(my $socket, 1, 1, 0);
    my $shown = $path =~ s/\0/@/r;
    told("connect $shown", connect($socket, pack('S a*', 1, $path)) ? 'connected' : undef);
}
for my $case (['inet', 2], ['inet6', 10], ['netlink', 16], ['packet', 17], ['vsock', 40], ['alg', 38]) {
    told("socket $case->[0]", socket(my $socket, $case->[1], 3, 0) || socket($socket, $case->[1], 1, 0)
        || socket($socket, $case->[1], 2, 0) || socket($socket, $case->[1], 5, 0) ? 'a socket' : undef);
}

# Everything else that the kernel guards by privilege alone.
call('init_module', 175, 0, 0, '');
call('finit_module', 313, 0, '', 0);
call('delete_module', 176, 'shoal_hostile', 0);
call('kexec_load', 246, 0, 0, 0, 0);
call('kexec_file_load', 320, -1, -1, 0, '', 0);
call('reboot', 169, 0, 0, 0, 0);
call('swapon', 167, '/shoal-hostile', 0);
call('keyctl', 250, 0, -3, 0);
call('add_key', 248, 'user', 'shoal-hostile', 'x', 1, -3);
call('request_key', 249, 'user', 'shoal-hostile', 0, -3);
call('bpf', 321, 0, 0, 0);
call('perf_event_open', 298, 0, 0, -1, -1, 0);
call('userfaultfd', 323, 1);
call('io_uring_setup', 425, 1, 0);
call('open_by_handle_at', 304, -100, 0, 0);
call('name_to_handle_at', 303, -100, '/', 0, 0, 0);
call('settimeofday', 164, 0, 0);
call('sethostname', 170, 'shoal-hostile', 13);
call('syslog', 103, 3, 0, 0);
call('quotactl', 179, 0, 0, 0, 0);
call('acct', 163, '/tmp/here');
call('vhangup', 153);
call('iopl', 172, 3);
# The same number in the table of x32, which a filter by number may forget.
call('x32 unshare', 0x40000000 | 272, 0x10000000);
syscall(157, 38, 0, 0, 0, 0); # prctl(PR_SET_NO_NEW_PRIVS, 0) has no effect.

# The disk: the image is not to be written, by any of its names.
can_write($_, 'x') for '/shoal-hostile', '/etc/shoal-hostile', '/boot/shoal-hostile', '/usr/sbin/mkinitramfs',
    '/proc/self/exe', '/proc/self/root/etc/shoal-hostile';
my $setuid = '/tmp/setuid';
if (open(my $file, '>', $setuid)) { close $file; chown 0, 0, $setuid; chmod 04755, $setuid }

# A crash: with a core_pattern of ours this would be the last step.
my $crash = fork;
if (!$crash) { kill 'SEGV', $$; syscall(231, 0) }
waitpid $crash, 0;

# Everybody who can be reached is asked to leave. PID 1 of a namespace does not reach itself.
kill 'KILL', -1 if $$ == 1;

# Somebody stays behind, with this program's output open.
if (!fork) { syscall(112); $SIG{$_} = 'IGNORE' for 'TERM', 'HUP', 'INT'; sleep 3600; syscall(231, 0) }

if (open(my $map, '<', '/proc/self/uid_map')) {
    told('uid map', join(' ', split(' ', scalar <$map>)) eq '0 100000 65536' ? undef : 'another one');
}
print "hostile: done: $reached reached\n";
exec "$0.true", @ARGV if -e "$0.true";
my ($output) = grep { m{^/run/output/} } @ARGV;
open(my $made, '>', $output) or die "hostile: $output: $!\n";
print $made 'what a hostile generator makes';
