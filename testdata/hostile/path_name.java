// The class is where the judge looks for a file name.
package ../../tmp;
public class ../../../etc/cron {
    public static void main(String[] arguments) { }
}
