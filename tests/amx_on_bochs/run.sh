#!/usr/bin/env bash
# Runs what was built in build/cpu on an emulated processor with AMX: Bochs 3.0 as a Sapphire Rapids, under Linux. It is
# slow (five minutes) and tells no speeds; it shows that tiles are configured, multiplied, permitted by the kernel and kept
# apart between threads as the processor wants it, where amx_emulation_test.cpp tests the kernels' own logic.
#
#   tests/amx_on_bochs/run.sh BOCHS_SOURCE [FOLDER]
#
# BOCHS_SOURCE  the unpacked source of Bochs 3.0; bochs-3.0.patch corrects its AMX state and one AVX-512 conversion
# FOLDER        where everything is made [build/bochs]
# Needs Debian's isolinux, syslinux-common, xorriso and cpio; it downloads, and does not install, a kernel, Busybox and
# the BIOS.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
source=${1:?"usage: run.sh BOCHS_SOURCE [FOLDER]"}
folder=${2:-$root/build/bochs}
built=$root/build/cpu
mkdir -p "$folder" && folder=$(cd "$folder" && pwd)

if [[ ! -x $folder/bochs/bochs ]]; then
  rm -rf "$folder/bochs" && cp -r "$source" "$folder/bochs"
  patch -d "$folder/bochs" -p1 <"$root/tests/amx_on_bochs/bochs-3.0.patch"
  (cd "$folder/bochs" && ./configure --enable-x86-64 --enable-cpu-level=6 --enable-avx --enable-evex --enable-amx \
    --enable-memtype --enable-handlers-chaining --enable-pci --with-nogui --disable-docbook CXXFLAGS=-O2 && make) \
    >"$folder/bochs.log" 2>&1
fi
if [[ ! -d $folder/packages ]]; then
  rm -rf "$folder/packages.new" && mkdir "$folder/packages.new" && cd "$folder/packages.new"
  apt-get download bochsbios vgabios busybox-static \
    "$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-\)/\1/p')"
  for package in *.deb; do dpkg -x "$package" .; done
  mv "$folder/packages.new" "$folder/packages"
fi
packages=$folder/packages

# The system that is started: the programs, the libraries they load, the models they read, and /init.
system=$folder/system
rm -rf "$system" && mkdir -p "$system"/{bin,dev,proc,lib64,tmp}
copy() { mkdir -p "$system$(dirname "$1")" && cp -rL "$1" "$system$(dirname "$1")/"; }
cp "$packages"/bin/busybox "$system/bin/"
for name in sh mount grep cmp sleep poweroff; do ln -s busybox "$system/bin/$name"; done
for file in libspecmoe.so specmoe bandwidth tests/kernels_tests tests/nn_tests; do
  copy "$built/$file" && strip "$system$built/$file"
  for library in $(ldd "$built/$file" | grep -o '[[:space:]]/\(usr/\)\?lib[^ ]*'); do copy "$library"; done
done
for data in tests/golden experiments/models/target experiments/models/drafter; do copy "$root/$data"; done
cat >"$system/init" <<END
#!/bin/sh
export PATH=/bin SPECMOE_ISA=amx
mount -t devtmpfs none /dev && mount -t proc none /proc
exec >/dev/ttyS0 2>&1
check() { "\$@" && echo "ok: \$*" || echo "FAILED: \$*"; }
cd $root
write() { $built/specmoe generate --target experiments/models/target --prompt "Problem: A baker" --max-new-tokens 24 "\$@"; }
check grep -q amx_bf16 /proc/cpuinfo
check $built/bandwidth --most-megabytes 1 --threads 1 --rounds 1
check $built/tests/kernels_tests --gtest_brief=1 --gtest_filter='*/amx'
for type in bfloat16 int8; do
  for threads in 1 2; do
    write --dtype \$type --threads \$threads >/tmp/plain
    write --dtype \$type --threads \$threads --drafter 'independent(path=experiments/models/drafter)' \
      --tree best_first >/tmp/speculative
    check cmp /tmp/plain /tmp/speculative
  done
done
check $built/tests/nn_tests --gtest_brief=1 --gtest_filter='*RowsInOnePass/*_amx_*:*Threads/mixtral_a_amx_*'
echo finished
sleep 1 # until it is written
poweroff -f
END
chmod +x "$system/init"

disc=$folder/disc
rm -rf "$disc" && mkdir -p "$disc"
(cd "$system" && find . | cpio -o -H newc --quiet) >"$disc/system"
cp "$packages"/boot/vmlinuz-* "$disc/kernel"
cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$disc/"
cat >"$disc/isolinux.cfg" <<END
default specmoe
label specmoe
 kernel /kernel
 initrd /system
 append console=ttyS0 loglevel=4 tsc=reliable lpj=1000000 mitigations=off nokaslr no5lvl
END
xorriso -as mkisofs -quiet -o "$folder/disc.iso" -b isolinux.bin -c boot.cat -no-emul-boot -boot-load-size 4 \
  -boot-info-table "$disc" 2>/dev/null

cat >"$folder/bochsrc" <<END
megs: 2048
romimage: file=$packages/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=$packages/usr/share/vgabios/vgabios-stdvga.bin
cpu: model=sapphire_rapids, count=1, ips=200000000, ignore_bad_msrs=1, exclude_features="la57,pks,cet,uintr,waitpkg"
clock: sync=none
ata0-master: type=cdrom, path=$folder/disc.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$folder/output.txt
log: $folder/processor.log
display_library: nogui
panic: action=fatal
END
rm -f "$folder/output.txt"
"$folder/bochs/bochs" -q -f "$folder/bochsrc" >"$folder/processor.txt" 2>&1 || true
tr -d '\r' <"$folder/output.txt" | sed -n '/^ok\|^FAILED\|PASSED\|FAILED  \|GFLOP/p'
grep -q '^finished' "$folder/output.txt" && ! grep -q FAILED "$folder/output.txt"
