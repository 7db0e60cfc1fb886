// Threads that go on, and an exit hook that never ends.
public class Main {
    public static void main(String[] arguments) {
        for (int i = 0; i < 4; i++) new Thread(() -> { while (true) { } }).start();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> { while (true) { } }));
        System.out.println(new java.util.Scanner(System.in).nextInt());
        System.exit(0);
    }
}
