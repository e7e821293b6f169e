# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_runtime_global_optspecs
    string join \n debug log= log-format= log-level= root= systemd-cgroup cgroup-manager= rootless= default-class= config= criu= v/version V h/help
end

function __fish_runtime_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_runtime_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_runtime_using_subcommand
    set -l cmd (__fish_runtime_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c runtime -n "__fish_runtime_needs_command" -l log -d 'append log messages to FILE instead of standard error' -r
complete -c runtime -n "__fish_runtime_needs_command" -l log-format -d 'format of log messages: text (default) or json' -r
complete -c runtime -n "__fish_runtime_needs_command" -l log-level -d 'least level to log: error, warning, info or debug' -r
complete -c runtime -n "__fish_runtime_needs_command" -l root -d 'directory of the containers\' state (default /run/hydra; should be on a tmpfs)' -r
complete -c runtime -n "__fish_runtime_needs_command" -l cgroup-manager -d 'cgroupfs (default), systemd or disabled' -r
complete -c runtime -n "__fish_runtime_needs_command" -l rootless -d 'ignore cgroup permission errors: true, false or auto (default)' -r
complete -c runtime -n "__fish_runtime_needs_command" -l default-class -d 'class of the container where no annotation names one (create and run)' -r
complete -c runtime -n "__fish_runtime_needs_command" -l config -d 'classes and defaults (default /etc/hydra/hydra.toml)' -r
complete -c runtime -n "__fish_runtime_needs_command" -l criu -d 'the criu binary (default: found in $PATH)' -r
complete -c runtime -n "__fish_runtime_needs_command" -l debug -d 'enable debug logging'
complete -c runtime -n "__fish_runtime_needs_command" -l systemd-cgroup -d 'same as --cgroup-manager systemd; expects a cgroupsPath slice:prefix:name'
complete -c runtime -n "__fish_runtime_needs_command" -s v -l version -d 'print the version'
complete -c runtime -n "__fish_runtime_needs_command" -s V -d 'print the version'
complete -c runtime -n "__fish_runtime_needs_command" -s h -l help -d 'Print help'
complete -c runtime -n "__fish_runtime_needs_command" -f -a "attach" -d 'connect to the streams of a container that has a monitor'
complete -c runtime -n "__fish_runtime_needs_command" -f -a "checkpoint" -d 'checkpoint a running container'
complete -c runtime -n "__fish_runtime_needs_command" -f -a "create" -d 'create a container'
complete -c runtime -n "__fish_runtime_needs_command" -f -a "delete" -d 'delete what a container holds'
complete -c runtime -n "__fish_runtime_needs_command" -f -a "events" -d 'display statistics and out-of-memory events'
complete -c runtime -n "__fish_runtime_needs_command" -f -a "exec" -d 'execute a new process inside a container'
complete -c runtime -n "__fish_runtime_needs_command" -f -a "features" -d 'show the enabled features'
complete -c runtime -n "__fish_runtime_needs_command" -f -a "inspect" -d 'show the knobs of containers'
complete -c runtime -n "__fish_runtime_needs_command" -f -a "kill" -d 'send a signal to a container\'s init process'
complete -c runtime -n "__fish_runtime_needs_command" -f -a "list" -d 'list containers'
complete -c runtime -n "__fish_runtime_needs_command" -f -a "logs" -d 'show the output of a container that has a monitor'
complete -c runtime -n "__fish_runtime_needs_command" -f -a "pause" -d 'suspend all processes of a container'
complete -c runtime -n "__fish_runtime_needs_command" -f -a "ps" -d 'display the processes of a container'
complete -c runtime -n "__fish_runtime_needs_command" -f -a "restore" -d 'restore a container from a checkpoint'
complete -c runtime -n "__fish_runtime_needs_command" -f -a "resume" -d 'resume all processes of a paused container'
complete -c runtime -n "__fish_runtime_needs_command" -f -a "run" -d 'create and run a container'
complete -c runtime -n "__fish_runtime_needs_command" -f -a "spec" -d 'create a new specification file'
complete -c runtime -n "__fish_runtime_needs_command" -f -a "start" -d 'start a created container'
complete -c runtime -n "__fish_runtime_needs_command" -f -a "state" -d 'output the state of a container as JSON'
complete -c runtime -n "__fish_runtime_needs_command" -f -a "stats" -d 'show what containers use of their limits'
complete -c runtime -n "__fish_runtime_needs_command" -f -a "update" -d 'change the limits of containers'
complete -c runtime -n "__fish_runtime_needs_command" -f -a "wait" -d 'wait for the end of a container that has a monitor; exit with its code'
complete -c runtime -n "__fish_runtime_using_subcommand attach" -l detach-keys -d 'keys that end the session and not the container (default ctrl-p,ctrl-q)' -r
complete -c runtime -n "__fish_runtime_using_subcommand attach" -l exec -d 'a process that an engine executes in the container, by its ID' -r
complete -c runtime -n "__fish_runtime_using_subcommand attach" -l no-stdin -d 'listen only'
complete -c runtime -n "__fish_runtime_using_subcommand attach" -s h -l help -d 'Print help'
complete -c runtime -n "__fish_runtime_using_subcommand checkpoint" -l image-path -d 'directory of criu\'s image files (default: checkpoint in the current directory)' -r
complete -c runtime -n "__fish_runtime_using_subcommand checkpoint" -l work-path -d 'directory of criu\'s work files and logs' -r
complete -c runtime -n "__fish_runtime_using_subcommand checkpoint" -l manage-cgroups-mode -d 'soft (default), full, strict or ignore' -r
complete -c runtime -n "__fish_runtime_using_subcommand checkpoint" -l empty-ns -d 'create the namespace, but don\'t restore its properties (network)' -r
complete -c runtime -n "__fish_runtime_using_subcommand checkpoint" -l parent-path -d 'earlier images of a pre-dump, relative to --image-path' -r
complete -c runtime -n "__fish_runtime_using_subcommand checkpoint" -l status-fd -d 'criu writes a zero byte to FD when lazy pages are ready' -r
complete -c runtime -n "__fish_runtime_using_subcommand checkpoint" -l page-server -d 'send memory pages to a page server' -r
complete -c runtime -n "__fish_runtime_using_subcommand checkpoint" -l tcp-established -d 'allow open tcp connections'
complete -c runtime -n "__fish_runtime_using_subcommand checkpoint" -l ext-unix-sk -d 'allow external unix sockets'
complete -c runtime -n "__fish_runtime_using_subcommand checkpoint" -l shell-job -d 'allow shell jobs'
complete -c runtime -n "__fish_runtime_using_subcommand checkpoint" -l lazy-pages -d 'load memory on demand by userfaultfd'
complete -c runtime -n "__fish_runtime_using_subcommand checkpoint" -l file-locks -d 'handle file locks'
complete -c runtime -n "__fish_runtime_using_subcommand checkpoint" -l auto-dedup -d 'deduplicate memory images'
complete -c runtime -n "__fish_runtime_using_subcommand checkpoint" -l leave-running -d 'let the container run on'
complete -c runtime -n "__fish_runtime_using_subcommand checkpoint" -l tcp-skip-in-flight -d 'skip tcp connections that are being made'
complete -c runtime -n "__fish_runtime_using_subcommand checkpoint" -l link-remap -d 'allow to link unlinked files back'
complete -c runtime -n "__fish_runtime_using_subcommand checkpoint" -l pre-dump -d 'save the memory alone and let the container run on'
complete -c runtime -n "__fish_runtime_using_subcommand checkpoint" -s h -l help -d 'Print help'
complete -c runtime -n "__fish_runtime_using_subcommand create" -s b -l bundle -d 'root of the bundle (default: the current directory)' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -s f -l config -d 'the bundle\'s configuration (default: config.json in the bundle)' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l console-socket -d 'unix socket that receives the master of the container\'s terminal' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l pidfd-socket -d 'unix socket that receives a pidfd of the container\'s init' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l pid-file -d 'write the pid of the container\'s init to FILE' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l preserve-fds -d 'pass N more file descriptors, after stdio and $LISTEN_FDS' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l class -d 'class of the container' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l blkio-read-bps -d 'bytes read per second, for each device' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l blkio-write-bps -d 'bytes written per second, for each device' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l blkio-read-iops -d 'reads per second, for each device' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l blkio-write-iops -d 'writes per second, for each device' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l blkio-total-read-bps -d 'bytes read per second, over all devices together' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l blkio-total-write-bps -d 'bytes written per second, over all devices together' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l blkio-total-read-iops -d 'reads per second, over all devices together' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l blkio-total-write-iops -d 'writes per second, over all devices together' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l blkio-follow-mounts -d 'limits for all devices follow mounts that appear while the container runs' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l blkio-weight -d 'share of a contended device' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l blkio-weight-device -d 'share of one contended device' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l blkio-latency -d 'target of the time that an operation takes' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l memory-limit -d 'memory in use' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l memory-reservation -d 'memory kept when the host is short of it' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l memory-swap -d 'memory and swap together, as runc\'s --memory-swap' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l memory-swap-max -d 'swap alone; v1 writes it together with memory.limit, which it needs' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l memory-high -d 'memory above which processes are slowed down' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l memory-min -d 'memory that is never reclaimed' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l memory-low -d 'memory that is reclaimed last; on v1 the soft limit' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l memory-swap-high -d 'swap above which processes are slowed down' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l memory-zswap-max -d 'compressed swap kept in memory' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l memory-oom-group -d 'the OOM killer takes the whole container' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l memory-swappiness -d 'eagerness to swap' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l cpu-weight -d 'share of a contended CPU; 100 is the usual one, written to v1 as shares x 10.24' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l cpu-max -d 'CPU time per period: max, N% of one CPU, or QUOTA PERIOD' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l cpu-share -d 'share of a contended CPU as v1 counts it; 1024 is the usual one' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l cpu-quota -d 'CPU time in a period' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l cpu-period -d 'length of the period' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l cpu-burst -d 'unused quota that may be saved up' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l cpu-idle -d 'runs only where nothing else wants the CPU' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l cpu-rt-period -d 'length of the real-time period' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l cpu-rt-runtime -d 'real-time CPU time in a period' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l cpuset-cpus -d 'CPUs it may run on' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l cpuset-mems -d 'memory nodes it may use' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l pids-limit -d 'number of tasks' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l hugetlb-limit -d 'huge pages by page size, as 2MB=1GiB' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l rdma-hca-handles -d 'RDMA handles by device' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l rdma-hca-objects -d 'RDMA objects by device' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l misc-max -d 'miscellaneous resources by name' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l net-egress-rate -d 'bytes sent per second' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l net-ingress-rate -d 'bytes received per second' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l net-egress-pps -d 'packets sent per second' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l net-ingress-pps -d 'packets received per second' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l net-egress-burst -d 'bytes that may be sent at once after a pause; max is the usual 300 ms\' worth' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l net-ingress-burst -d 'bytes that may be received at once after a pause' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l net-egress-pps-burst -d 'packets that may be sent at once after a pause' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l net-ingress-pps-burst -d 'packets that may be received at once after a pause' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l net-new-conns -d 'connections opened per second' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l net-new-conns-burst -d 'connections opened at once after a pause; max is one second\'s worth' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l net-count-loopback -d 'traffic of the loopback interface counts too' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l net-ingress-mode -d 'drop at once what exceeds the rate, or queue it' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l net-classid -d 'class of the container\'s packets, for tc and nft' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l net-priority -d 'priority of the container\'s packets by interface' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l cgroup-file -d 'write VALUE to FILE of the container\'s cgroup' -r
complete -c runtime -n "__fish_runtime_using_subcommand create" -l no-pivot -d 'use chroot instead of pivot_root (for a rootfs on a ramdisk)'
complete -c runtime -n "__fish_runtime_using_subcommand create" -l no-new-keyring -d 'let the container inherit the caller\'s session keyring'
complete -c runtime -n "__fish_runtime_using_subcommand create" -l no-subreaper -d 'don\'t reap processes that lose their parent'
complete -c runtime -n "__fish_runtime_using_subcommand create" -s h -l help -d 'Print help'
complete -c runtime -n "__fish_runtime_using_subcommand delete" -s f -l force -d 'kill the container first if it runs'
complete -c runtime -n "__fish_runtime_using_subcommand delete" -s h -l help -d 'Print help'
complete -c runtime -n "__fish_runtime_using_subcommand events" -l interval -d 'time between two statistics (default 5s)' -r
complete -c runtime -n "__fish_runtime_using_subcommand events" -l stats -d 'print the statistics once and exit'
complete -c runtime -n "__fish_runtime_using_subcommand events" -s h -l help -d 'Print help'
complete -c runtime -n "__fish_runtime_using_subcommand exec" -l console-socket -d 'unix socket that receives the master of the process\'s terminal' -r
complete -c runtime -n "__fish_runtime_using_subcommand exec" -l pidfd-socket -d 'unix socket that receives a pidfd of the process' -r
complete -c runtime -n "__fish_runtime_using_subcommand exec" -l cwd -d 'working directory in the container' -r
complete -c runtime -n "__fish_runtime_using_subcommand exec" -s e -l env -d 'set an environment variable' -r
complete -c runtime -n "__fish_runtime_using_subcommand exec" -s u -l user -d 'user and group of the process' -r
complete -c runtime -n "__fish_runtime_using_subcommand exec" -s g -l additional-gids -d 'supplementary group' -r
complete -c runtime -n "__fish_runtime_using_subcommand exec" -s p -l process -d 'the process as an OCI process object; replaces all else' -r
complete -c runtime -n "__fish_runtime_using_subcommand exec" -l pid-file -d 'write the pid of the process to FILE' -r
complete -c runtime -n "__fish_runtime_using_subcommand exec" -l process-label -d 'SELinux label of the process' -r
complete -c runtime -n "__fish_runtime_using_subcommand exec" -l apparmor -d 'AppArmor profile of the process' -r
complete -c runtime -n "__fish_runtime_using_subcommand exec" -s c -l cap -d 'add a capability' -r
complete -c runtime -n "__fish_runtime_using_subcommand exec" -l preserve-fds -d 'pass N more file descriptors, after stdio and $LISTEN_FDS' -r
complete -c runtime -n "__fish_runtime_using_subcommand exec" -l cgroup -d 'run in an existing sub-cgroup of the container' -r
complete -c runtime -n "__fish_runtime_using_subcommand exec" -s t -l tty -d 'allocate a terminal'
complete -c runtime -n "__fish_runtime_using_subcommand exec" -s d -l detach -d 'return when the process runs'
complete -c runtime -n "__fish_runtime_using_subcommand exec" -l no-new-privs -d 'set no_new_privs for the process'
complete -c runtime -n "__fish_runtime_using_subcommand exec" -l ignore-paused -d 'allow to execute in a paused container'
complete -c runtime -n "__fish_runtime_using_subcommand exec" -l no-subreaper -d 'don\'t reap processes that lose their parent'
complete -c runtime -n "__fish_runtime_using_subcommand exec" -s h -l help -d 'Print help'
complete -c runtime -n "__fish_runtime_using_subcommand features" -s h -l help -d 'Print help'
complete -c runtime -n "__fish_runtime_using_subcommand inspect" -l json -d 'print JSON'
complete -c runtime -n "__fish_runtime_using_subcommand inspect" -s h -l help -d 'Print help'
complete -c runtime -n "__fish_runtime_using_subcommand kill" -s a -l all -d 'signal every process of the container'
complete -c runtime -n "__fish_runtime_using_subcommand kill" -s h -l help -d 'Print help'
complete -c runtime -n "__fish_runtime_using_subcommand list" -s f -l format -d 'table (default) or json' -r
complete -c runtime -n "__fish_runtime_using_subcommand list" -s q -l quiet -d 'print the IDs alone'
complete -c runtime -n "__fish_runtime_using_subcommand list" -s l -l long -d 'also class, monitor and root'
complete -c runtime -n "__fish_runtime_using_subcommand list" -s h -l help -d 'Print help'
complete -c runtime -n "__fish_runtime_using_subcommand logs" -s f -l follow -d 'go on until the container ends'
complete -c runtime -n "__fish_runtime_using_subcommand logs" -s h -l help -d 'Print help'
complete -c runtime -n "__fish_runtime_using_subcommand pause" -s h -l help -d 'Print help'
complete -c runtime -n "__fish_runtime_using_subcommand ps" -s f -l format -d 'table (default) or json' -r
complete -c runtime -n "__fish_runtime_using_subcommand ps" -s h -l help -d 'Print help'
complete -c runtime -n "__fish_runtime_using_subcommand restore" -l image-path -d 'directory of criu\'s image files (default: checkpoint in the current directory)' -r
complete -c runtime -n "__fish_runtime_using_subcommand restore" -l work-path -d 'directory of criu\'s work files and logs' -r
complete -c runtime -n "__fish_runtime_using_subcommand restore" -l manage-cgroups-mode -d 'soft (default), full, strict or ignore' -r
complete -c runtime -n "__fish_runtime_using_subcommand restore" -l empty-ns -d 'create the namespace, but don\'t restore its properties (network)' -r
complete -c runtime -n "__fish_runtime_using_subcommand restore" -s b -l bundle -d 'root of the bundle (default: the current directory)' -r
complete -c runtime -n "__fish_runtime_using_subcommand restore" -l console-socket -d 'unix socket that receives the master of the container\'s terminal' -r
complete -c runtime -n "__fish_runtime_using_subcommand restore" -l pid-file -d 'write the pid of the container\'s init to FILE' -r
complete -c runtime -n "__fish_runtime_using_subcommand restore" -l lsm-profile -d 'LSM profile of the restored processes' -r
complete -c runtime -n "__fish_runtime_using_subcommand restore" -l lsm-mount-context -d 'SELinux context of the restored mounts' -r
complete -c runtime -n "__fish_runtime_using_subcommand restore" -l tcp-established -d 'allow open tcp connections'
complete -c runtime -n "__fish_runtime_using_subcommand restore" -l ext-unix-sk -d 'allow external unix sockets'
complete -c runtime -n "__fish_runtime_using_subcommand restore" -l shell-job -d 'allow shell jobs'
complete -c runtime -n "__fish_runtime_using_subcommand restore" -l lazy-pages -d 'load memory on demand by userfaultfd'
complete -c runtime -n "__fish_runtime_using_subcommand restore" -l file-locks -d 'handle file locks'
complete -c runtime -n "__fish_runtime_using_subcommand restore" -l auto-dedup -d 'deduplicate memory images'
complete -c runtime -n "__fish_runtime_using_subcommand restore" -s d -l detach -d 'return when the container runs'
complete -c runtime -n "__fish_runtime_using_subcommand restore" -l no-subreaper -d 'don\'t reap processes that lose their parent'
complete -c runtime -n "__fish_runtime_using_subcommand restore" -l no-pivot -d 'use chroot instead of pivot_root (for a rootfs on a ramdisk)'
complete -c runtime -n "__fish_runtime_using_subcommand restore" -l tcp-close -d 'restore tcp connections as closed'
complete -c runtime -n "__fish_runtime_using_subcommand restore" -s h -l help -d 'Print help'
complete -c runtime -n "__fish_runtime_using_subcommand resume" -s h -l help -d 'Print help'
complete -c runtime -n "__fish_runtime_using_subcommand run" -s b -l bundle -d 'root of the bundle (default: the current directory)' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -s f -l config -d 'the bundle\'s configuration (default: config.json in the bundle)' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l console-socket -d 'unix socket that receives the master of the container\'s terminal' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l pidfd-socket -d 'unix socket that receives a pidfd of the container\'s init' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l pid-file -d 'write the pid of the container\'s init to FILE' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l preserve-fds -d 'pass N more file descriptors, after stdio and $LISTEN_FDS' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l class -d 'class of the container' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l blkio-read-bps -d 'bytes read per second, for each device' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l blkio-write-bps -d 'bytes written per second, for each device' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l blkio-read-iops -d 'reads per second, for each device' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l blkio-write-iops -d 'writes per second, for each device' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l blkio-total-read-bps -d 'bytes read per second, over all devices together' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l blkio-total-write-bps -d 'bytes written per second, over all devices together' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l blkio-total-read-iops -d 'reads per second, over all devices together' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l blkio-total-write-iops -d 'writes per second, over all devices together' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l blkio-follow-mounts -d 'limits for all devices follow mounts that appear while the container runs' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l blkio-weight -d 'share of a contended device' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l blkio-weight-device -d 'share of one contended device' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l blkio-latency -d 'target of the time that an operation takes' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l memory-limit -d 'memory in use' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l memory-reservation -d 'memory kept when the host is short of it' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l memory-swap -d 'memory and swap together, as runc\'s --memory-swap' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l memory-swap-max -d 'swap alone; v1 writes it together with memory.limit, which it needs' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l memory-high -d 'memory above which processes are slowed down' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l memory-min -d 'memory that is never reclaimed' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l memory-low -d 'memory that is reclaimed last; on v1 the soft limit' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l memory-swap-high -d 'swap above which processes are slowed down' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l memory-zswap-max -d 'compressed swap kept in memory' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l memory-oom-group -d 'the OOM killer takes the whole container' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l memory-swappiness -d 'eagerness to swap' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l cpu-weight -d 'share of a contended CPU; 100 is the usual one, written to v1 as shares x 10.24' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l cpu-max -d 'CPU time per period: max, N% of one CPU, or QUOTA PERIOD' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l cpu-share -d 'share of a contended CPU as v1 counts it; 1024 is the usual one' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l cpu-quota -d 'CPU time in a period' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l cpu-period -d 'length of the period' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l cpu-burst -d 'unused quota that may be saved up' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l cpu-idle -d 'runs only where nothing else wants the CPU' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l cpu-rt-period -d 'length of the real-time period' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l cpu-rt-runtime -d 'real-time CPU time in a period' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l cpuset-cpus -d 'CPUs it may run on' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l cpuset-mems -d 'memory nodes it may use' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l pids-limit -d 'number of tasks' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l hugetlb-limit -d 'huge pages by page size, as 2MB=1GiB' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l rdma-hca-handles -d 'RDMA handles by device' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l rdma-hca-objects -d 'RDMA objects by device' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l misc-max -d 'miscellaneous resources by name' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l net-egress-rate -d 'bytes sent per second' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l net-ingress-rate -d 'bytes received per second' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l net-egress-pps -d 'packets sent per second' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l net-ingress-pps -d 'packets received per second' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l net-egress-burst -d 'bytes that may be sent at once after a pause; max is the usual 300 ms\' worth' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l net-ingress-burst -d 'bytes that may be received at once after a pause' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l net-egress-pps-burst -d 'packets that may be sent at once after a pause' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l net-ingress-pps-burst -d 'packets that may be received at once after a pause' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l net-new-conns -d 'connections opened per second' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l net-new-conns-burst -d 'connections opened at once after a pause; max is one second\'s worth' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l net-count-loopback -d 'traffic of the loopback interface counts too' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l net-ingress-mode -d 'drop at once what exceeds the rate, or queue it' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l net-classid -d 'class of the container\'s packets, for tc and nft' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l net-priority -d 'priority of the container\'s packets by interface' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l cgroup-file -d 'write VALUE to FILE of the container\'s cgroup' -r
complete -c runtime -n "__fish_runtime_using_subcommand run" -l no-pivot -d 'use chroot instead of pivot_root (for a rootfs on a ramdisk)'
complete -c runtime -n "__fish_runtime_using_subcommand run" -l no-new-keyring -d 'let the container inherit the caller\'s session keyring'
complete -c runtime -n "__fish_runtime_using_subcommand run" -l no-subreaper -d 'don\'t reap processes that lose their parent'
complete -c runtime -n "__fish_runtime_using_subcommand run" -s d -l detach -d 'return when the container runs'
complete -c runtime -n "__fish_runtime_using_subcommand run" -l keep -d 'don\'t delete the container when it ends'
complete -c runtime -n "__fish_runtime_using_subcommand run" -s h -l help -d 'Print help'
complete -c runtime -n "__fish_runtime_using_subcommand spec" -s b -l bundle -d 'root of the bundle (default: the current directory)' -r
complete -c runtime -n "__fish_runtime_using_subcommand spec" -s f -l file -d 'file to write (default: config.json in the bundle)' -r
complete -c runtime -n "__fish_runtime_using_subcommand spec" -l rootless -d 'for a container without privileges'
complete -c runtime -n "__fish_runtime_using_subcommand spec" -s h -l help -d 'Print help'
complete -c runtime -n "__fish_runtime_using_subcommand start" -s h -l help -d 'Print help'
complete -c runtime -n "__fish_runtime_using_subcommand state" -s h -l help -d 'Print help'
complete -c runtime -n "__fish_runtime_using_subcommand stats" -l format -d 'table (default), json or prometheus' -r
complete -c runtime -n "__fish_runtime_using_subcommand stats" -l interval -d 'time between two tables (default 1s)' -r
complete -c runtime -n "__fish_runtime_using_subcommand stats" -l once -d 'print one table and exit'
complete -c runtime -n "__fish_runtime_using_subcommand stats" -l json -d 'print JSON, one object for each container and interval'
complete -c runtime -n "__fish_runtime_using_subcommand stats" -s h -l help -d 'Print help'
complete -c runtime -n "__fish_runtime_using_subcommand update" -s r -l resources -d 'read the resources as JSON from FILE, or from standard input if it is -' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l class -d 'set the container\'s class; an empty NAME takes it away' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l annotation -d 'set a hydra.* annotation' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l unset -d 'take the operator\'s KNOB (or class) away again; hydra.KNOB: an annotation' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l select -d 'all containers of a class' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l blkio-weight -d 'block IO weight, 10 to 1000' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l cpu-period -d 'CPU CFS period; 0 is the system\'s default' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l cpu-quota -d 'CPU time allowed in a period' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l cpu-burst -d 'CPU time that may be saved up and used in addition' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l cpu-share -d 'CPU shares, relative to other containers' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l cpu-rt-period -d 'CPU realtime period; 0 is the system\'s default' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l cpu-rt-runtime -d 'CPU realtime allowed in a period' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l cpu-idle -d '1: run as SCHED_IDLE' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l cpuset-cpus -d 'CPUs to use' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l cpuset-mems -d 'memory nodes to use' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l kernel-memory -d 'kernel memory limit (obsolete)' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l kernel-memory-tcp -d 'kernel memory limit for TCP buffers (obsolete)' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l memory -d 'memory limit; -1 is none' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l memory-reservation -d 'memory reservation or soft limit' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l memory-swap -d 'memory and swap together; -1 is none' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l pids-limit -d 'number of processes; -1 is no limit' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l l3-cache-schema -d 'Intel RDT/CAT schema of the L3 cache' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l mem-bw-schema -d 'Intel RDT/MBA schema of memory bandwidth' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l blkio-read-bps -d 'bytes read per second, for each device' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l blkio-write-bps -d 'bytes written per second, for each device' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l blkio-read-iops -d 'reads per second, for each device' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l blkio-write-iops -d 'writes per second, for each device' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l blkio-total-read-bps -d 'bytes read per second, over all devices together' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l blkio-total-write-bps -d 'bytes written per second, over all devices together' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l blkio-total-read-iops -d 'reads per second, over all devices together' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l blkio-total-write-iops -d 'writes per second, over all devices together' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l blkio-follow-mounts -d 'limits for all devices follow mounts that appear while the container runs' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l blkio-weight-device -d 'share of one contended device' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l blkio-latency -d 'target of the time that an operation takes' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l memory-limit -d 'memory in use' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l memory-swap-max -d 'swap alone; v1 writes it together with memory.limit, which it needs' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l memory-high -d 'memory above which processes are slowed down' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l memory-min -d 'memory that is never reclaimed' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l memory-low -d 'memory that is reclaimed last; on v1 the soft limit' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l memory-swap-high -d 'swap above which processes are slowed down' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l memory-zswap-max -d 'compressed swap kept in memory' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l memory-oom-group -d 'the OOM killer takes the whole container' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l memory-swappiness -d 'eagerness to swap' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l cpu-weight -d 'share of a contended CPU; 100 is the usual one, written to v1 as shares x 10.24' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l cpu-max -d 'CPU time per period: max, N% of one CPU, or QUOTA PERIOD' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l hugetlb-limit -d 'huge pages by page size, as 2MB=1GiB' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l rdma-hca-handles -d 'RDMA handles by device' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l rdma-hca-objects -d 'RDMA objects by device' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l misc-max -d 'miscellaneous resources by name' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l net-egress-rate -d 'bytes sent per second' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l net-ingress-rate -d 'bytes received per second' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l net-egress-pps -d 'packets sent per second' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l net-ingress-pps -d 'packets received per second' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l net-egress-burst -d 'bytes that may be sent at once after a pause; max is the usual 300 ms\' worth' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l net-ingress-burst -d 'bytes that may be received at once after a pause' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l net-egress-pps-burst -d 'packets that may be sent at once after a pause' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l net-ingress-pps-burst -d 'packets that may be received at once after a pause' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l net-new-conns -d 'connections opened per second' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l net-new-conns-burst -d 'connections opened at once after a pause; max is one second\'s worth' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l net-count-loopback -d 'traffic of the loopback interface counts too' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l net-ingress-mode -d 'drop at once what exceeds the rate, or queue it' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l net-classid -d 'class of the container\'s packets, for tc and nft' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l net-priority -d 'priority of the container\'s packets by interface' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l cgroup-file -d 'write VALUE to FILE of the container\'s cgroup' -r
complete -c runtime -n "__fish_runtime_using_subcommand update" -l dry-run -d 'print what would be written, write nothing'
complete -c runtime -n "__fish_runtime_using_subcommand update" -l json -d 'print the plan and what was written as JSON'
complete -c runtime -n "__fish_runtime_using_subcommand update" -l reload -d 'read the class files again and apply them to the containers that use them'
complete -c runtime -n "__fish_runtime_using_subcommand update" -s h -l help -d 'Print help'
complete -c runtime -n "__fish_runtime_using_subcommand wait" -l exec -d 'a process that an engine executes in the container, by its ID' -r
complete -c runtime -n "__fish_runtime_using_subcommand wait" -s h -l help -d 'Print help'
